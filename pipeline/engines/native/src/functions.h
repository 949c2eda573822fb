// Exponentials and GELU of vectors.
#pragma once
#include "lanes.h"

namespace vit {

// A polynomial, coefficients of the highest power first.
template <int count>
inline Lanes polynomial(const float (&coefficients)[count], Lanes x) {
  Lanes sum = all(coefficients[0]);
  for (int index = 1; index < count; ++index) sum = mul_add(sum, x, all(coefficients[index]));
  return sum;
}

// 2^x, to 3e-7 of it where it must be fine, else to 8e-5; below -126 as there. Fitted between -1/2 and 1/2.
template <bool fine>
inline Lanes power_of_two(Lanes x) {
  constexpr float kRough[] = {0.05517166f, 0.24261112f, 0.69326099f, 0.99992807f};
  constexpr float kFine[] = {0.00132765f, 0.00967554f, 0.05550713f, 0.24022120f, 0.69314697f, 1.00000007f};
  x = max(all(-126.0f), x);  // In this order: of a NaN and a number the processor takes the second.
  const Lanes whole = nearest_whole(x), rest = sub(x, whole);
  if constexpr (fine) return scale_by_power(polynomial(kFine, rest), whole);
  else return scale_by_power(polynomial(kRough, rest), whole);
}

// x times the normal distribution's integral up to x. That is 1/2 + x P(x^2) / Q(x^2), fitted up to `limit`,
// where it is 0 or 1: wrong by less than 5e-7 where it must be fine, else by less than 1e-4.
template <bool fine>
inline Lanes gelu(Lanes x) {
  constexpr float kRoughP[] = {0.0029849843f, 0.0461414220f, 0.3986007206f};
  constexpr float kRoughQ[] = {0.0004360474f, 0.0310290001f, 0.2799637985f, 1.0f};
  constexpr float kFineP[] = {9.67421655e-06f, 5.38499221e-04f, 6.93290476e-03f, 6.92368368e-02f, 3.98940219e-01f};
  constexpr float kFineQ[] = {7.78306945e-07f, 1.96252076e-04f, 3.97385657e-03f,
                              4.91231525e-02f, 3.40188340e-01f, 1.0f};
  const Lanes limit = all(fine ? 5.5f : 4.5f);
  const Lanes near = max(min(x, limit), sub(zeros(), limit));
  const Lanes square = mul(near, near);
  Lanes ratio;
  if constexpr (fine) {
    const Lanes q = polynomial(kFineQ, square), estimate = estimate_inverse(q);
    const Lanes inverse = mul(estimate, neg_mul_add(q, estimate, all(2.0f)));
    ratio = mul(polynomial(kFineP, square), inverse);
  } else {
    ratio = mul(polynomial(kRoughP, square), estimate_inverse(polynomial(kRoughQ, square)));
  }
  return mul(x, mul_add(near, ratio, all(0.5f)));
}

// x sigmoid(1.702 x), as near to it as `gelu` is to the other.
template <bool fine>
inline Lanes quick_gelu(Lanes x) {
  constexpr float kSlope = -1.702f * 1.44269504f;  // of the power of two
  const Lanes below = add(power_of_two<fine>(min(mul(x, all(kSlope)), all(126.0f))), all(1.0f));
  const Lanes estimate = estimate_inverse(below);
  if constexpr (fine) return mul(x, mul(estimate, neg_mul_add(below, estimate, all(2.0f))));
  else return mul(x, estimate);
}

inline void add_to(float* at, Lanes values) { store_unaligned(at, add(load_unaligned(at), values)); }

}  // namespace vit
