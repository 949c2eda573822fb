// Vectors of 16 float32, on AVX2 and FMA: two of 8.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace vit {

struct Lanes {
  __m256 low, high;
};
struct Mask {
  __m256i low, high;
};
constexpr int kLanes = 16;

// Memory of vectors is aligned to their size, but for what Python hands over.
inline Lanes load(const float* at) { return {_mm256_load_ps(at), _mm256_load_ps(at + 8)}; }
inline Lanes load_unaligned(const float* at) { return {_mm256_loadu_ps(at), _mm256_loadu_ps(at + 8)}; }
inline void store(float* at, Lanes x) {
  _mm256_store_ps(at, x.low);
  _mm256_store_ps(at + 8, x.high);
}
inline void store_unaligned(float* at, Lanes x) {
  _mm256_storeu_ps(at, x.low);
  _mm256_storeu_ps(at + 8, x.high);
}

inline Lanes zeros() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline Lanes all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes add(Lanes a, Lanes b) { return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)}; }
inline Lanes sub(Lanes a, Lanes b) { return {_mm256_sub_ps(a.low, b.low), _mm256_sub_ps(a.high, b.high)}; }
inline Lanes mul(Lanes a, Lanes b) { return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)}; }
inline Lanes min(Lanes a, Lanes b) { return {_mm256_min_ps(a.low, b.low), _mm256_min_ps(a.high, b.high)}; }
inline Lanes max(Lanes a, Lanes b) { return {_mm256_max_ps(a.low, b.low), _mm256_max_ps(a.high, b.high)}; }
inline Lanes mul_add(Lanes a, Lanes b, Lanes c) {  // a b + c
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Lanes mul_sub(Lanes a, Lanes b, Lanes c) {  // a b - c
  return {_mm256_fmsub_ps(a.low, b.low, c.low), _mm256_fmsub_ps(a.high, b.high, c.high)};
}
inline Lanes neg_mul_add(Lanes a, Lanes b, Lanes c) {  // c - a b
  return {_mm256_fnmadd_ps(a.low, b.low, c.low), _mm256_fnmadd_ps(a.high, b.high, c.high)};
}
inline float sum_of(Lanes x) {
  const __m256 eight = _mm256_add_ps(x.low, x.high);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
inline float largest_of(Lanes x) {
  const __m256 eight = _mm256_max_ps(x.low, x.high);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// One over x, to 11 bits or more.
inline Lanes estimate_inverse(Lanes x) { return {_mm256_rcp_ps(x.low), _mm256_rcp_ps(x.high)}; }
inline Lanes nearest_whole(Lanes x) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.low, kNearest), _mm256_round_ps(x.high, kNearest)};
}
// x times 2^whole, for whole numbers from -126 to 127: they are a float32's exponent.
inline __m256 scale_by_power(__m256 x, __m256 whole) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(whole), _mm256_set1_epi32(127));
  return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
inline Lanes scale_by_power(Lanes x, Lanes whole) {
  return {scale_by_power(x.low, whole.low), scale_by_power(x.high, whole.high)};
}

// A mask of the first `count` lanes, of all where it is more.
inline Mask first_lanes(int count) {
  const __m256i order = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), counts = _mm256_set1_epi32(count);
  return {_mm256_cmpgt_epi32(counts, order),
          _mm256_cmpgt_epi32(_mm256_sub_epi32(counts, _mm256_set1_epi32(8)), order)};
}
inline Lanes keep(Mask mask, Lanes x) {
  return {_mm256_and_ps(_mm256_castsi256_ps(mask.low), x.low), _mm256_and_ps(_mm256_castsi256_ps(mask.high), x.high)};
}
inline Lanes load_or(Lanes otherwise, Mask mask, const float* at) {
  return {_mm256_blendv_ps(otherwise.low, _mm256_maskload_ps(at, mask.low), _mm256_castsi256_ps(mask.low)),
          _mm256_blendv_ps(otherwise.high, _mm256_maskload_ps(at + 8, mask.high), _mm256_castsi256_ps(mask.high))};
}
inline void store_unaligned(float* at, Mask mask, Lanes x) {
  _mm256_maskstore_ps(at, mask.low, x.low);
  _mm256_maskstore_ps(at + 8, mask.high, x.high);
}

}  // namespace vit
