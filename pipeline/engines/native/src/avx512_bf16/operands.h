// What products take, and what activations are kept in: bfloat16, of which an instruction multiplies pairs.
#pragma once
#include <cstring>

#include "lanes.h"

namespace vit {

using Number = uint16_t;
constexpr int kTogether = 2;            // inputs that stand side by side for each output
constexpr int kDepth = 8;               // inputs that are worked on between two calls of `between`
constexpr int kTile = kDepth * kLanes;  // elements of the right operand for so many inputs
constexpr int kLine = 32;               // elements of a cache line
constexpr int kMostPlanes = 1;          // numbers that a value is kept in

// The sums of 16 outputs, and of two more inputs that they have in common.
inline Lanes add_product(Lanes sums, const Number* left, const Number* right) {
  int32_t pair;
  std::memcpy(&pair, left, sizeof pair);
  return _mm512_dpbf16_ps(sums, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_load_si512(right));
}

}  // namespace vit
