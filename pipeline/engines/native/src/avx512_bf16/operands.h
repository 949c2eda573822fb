// What products take, and what activations are kept in: bfloat16, of which an instruction multiplies pairs.
#pragma once
#include <cstring>

#include "lanes.h"

namespace vit {

using Number = uint16_t;
constexpr int kDepth = 8;               // inputs that are worked on between two calls of `between`
constexpr int kTile = kDepth * kLanes;  // elements of the right operand for so many inputs
constexpr int kMostPlanes = 1;          // numbers that a value is kept in

// The sums of 16 outputs, two inputs that they have in common at a time.
struct Product {
  using Left = Number;
  using Right = Number;
  using Sums = Lanes;
  using Result = float;
  static constexpr int kInputs = 2;

  static Sums none() { return zeros(); }
  static Sums add(Sums sums, const Left* left, const Right* right) {
    int32_t pair;
    std::memcpy(&pair, left, sizeof pair);
    return _mm512_dpbf16_ps(sums, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)_mm512_load_si512(right));
  }
  static void keep(Result* at, Sums sums) { store(at, sums); }
};

}  // namespace vit
