// What products take, and what activations are kept in: float32.
#pragma once
#include "lanes.h"

namespace vit {

using Number = float;
constexpr int kTogether = 1;            // inputs that stand side by side for each output
constexpr int kDepth = 4;               // inputs that are worked on between two calls of `between`
constexpr int kTile = kDepth * kLanes;  // elements of the right operand for so many inputs
constexpr int kLine = 16;               // elements of a cache line
constexpr int kMostPlanes = 1;          // numbers that a value is kept in

// The sums of 16 outputs, and of one more input that they have in common.
inline Lanes add_product(Lanes sums, const Number* left, const Number* right) {
  return mul_add(all(*left), load(right), sums);
}

}  // namespace vit
