// What products take, and what activations are kept in: float32.
#pragma once
#include "lanes.h"

namespace vit {

using Number = float;
constexpr int kDepth = 4;               // inputs that are worked on between two calls of `between`
constexpr int kTile = kDepth * kLanes;  // elements of the right operand for so many inputs
constexpr int kMostPlanes = 1;          // numbers that a value is kept in

// The sums of 16 outputs, an input that they have in common at a time.
struct Product {
  using Left = Number;
  using Right = Number;
  using Sums = Lanes;
  using Result = float;
  static constexpr int kInputs = 1;

  static Sums none() { return zeros(); }
  static Sums add(Sums sums, const Left* left, const Right* right) { return mul_add(all(*left), load(right), sums); }
  static void keep(Result* at, Sums sums) { store(at, sums); }
};

}  // namespace vit
