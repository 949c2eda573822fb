// Vectors of 16 float32, and their way to bfloat16 and back.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace vit {

using bf16 = uint16_t;
constexpr int kLanes = 16;

inline __m256i to_bf16(__m512 values) { return (__m256i)_mm512_cvtneps_pbh(values); }

inline __m512 to_float(__m256i values) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

// Calls use(plane, bfloat16 values): the values rounded and, of two planes, what the rounding left.
template <int planes, class Use>
inline void split(__m512 values, Use use) {
  const __m256i rounded = to_bf16(values);
  use(0, rounded);
  if constexpr (planes == 2) use(1, to_bf16(_mm512_sub_ps(values, to_float(rounded))));
}

// A polynomial, coefficients of the highest power first.
template <int count>
inline __m512 polynomial(const float (&coefficients)[count], __m512 x) {
  __m512 sum = _mm512_set1_ps(coefficients[0]);
  for (int index = 1; index < count; ++index)
    sum = _mm512_fmadd_ps(sum, x, _mm512_set1_ps(coefficients[index]));
  return sum;
}

// 2^x, to 8e-5 of it where one plane is kept, to 3e-7 where two are; below -126 as there. Fitted between -1/2 and 1/2.
template <int planes>
inline __m512 power_of_two(__m512 x) {
  constexpr float kRough[] = {0.05517166f, 0.24261112f, 0.69326099f, 0.99992807f};
  constexpr float kFine[] = {0.00132765f, 0.00967554f, 0.05550713f, 0.24022120f, 0.69314697f, 1.00000007f};
  x = _mm512_max_ps(x, _mm512_set1_ps(-126.0f));
  const __m512 whole = _mm512_roundscale_ps(x, 0), rest = _mm512_sub_ps(x, whole);
  if constexpr (planes == 1) return _mm512_scalef_ps(polynomial(kRough, rest), whole);
  else return _mm512_scalef_ps(polynomial(kFine, rest), whole);
}

// x times the normal distribution's integral up to x. That is 1/2 + x P(x^2) / Q(x^2), fitted up to `limit`,
// where it is 0 or 1: wrong by less than 1e-4 where one plane is kept, by less than 5e-7 where two are.
template <int planes>
inline __m512 gelu(__m512 x) {
  constexpr float kRoughP[] = {0.0029849843f, 0.0461414220f, 0.3986007206f};
  constexpr float kRoughQ[] = {0.0004360474f, 0.0310290001f, 0.2799637985f, 1.0f};
  constexpr float kFineP[] = {9.67421655e-06f, 5.38499221e-04f, 6.93290476e-03f, 6.92368368e-02f, 3.98940219e-01f};
  constexpr float kFineQ[] = {7.78306945e-07f, 1.96252076e-04f, 3.97385657e-03f,
                              4.91231525e-02f, 3.40188340e-01f, 1.0f};
  const __m512 limit = _mm512_set1_ps(planes == 1 ? 4.5f : 5.5f);
  const __m512 near = _mm512_max_ps(_mm512_min_ps(x, limit), _mm512_sub_ps(_mm512_setzero_ps(), limit));
  const __m512 square = _mm512_mul_ps(near, near);
  __m512 ratio;
  if constexpr (planes == 1) {
    ratio = _mm512_mul_ps(polynomial(kRoughP, square), _mm512_rcp14_ps(polynomial(kRoughQ, square)));
  } else {
    const __m512 q = polynomial(kFineQ, square), estimate = _mm512_rcp14_ps(q);
    const __m512 inverse = _mm512_mul_ps(estimate, _mm512_fnmadd_ps(q, estimate, _mm512_set1_ps(2.0f)));
    ratio = _mm512_mul_ps(polynomial(kFineP, square), inverse);
  }
  return _mm512_mul_ps(x, _mm512_fmadd_ps(near, ratio, _mm512_set1_ps(0.5f)));
}

// A mask of the first `count` lanes, of all where it is more.
inline __mmask16 first_lanes(int count) { return count >= kLanes ? 0xFFFF : (1u << count) - 1; }

inline void add_to(float* at, __m512 values) {
  _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), values));
}

}  // namespace vit
