// What products take, and what activations are kept in: float32.
#pragma once
#include "lanes.h"

namespace vit {

using Number = float;
constexpr int kDepth = 4;               // inputs that are worked on between two calls of `between`
constexpr int kTile = kDepth * kLanes;  // elements of the right operand for so many inputs
constexpr int kLine = 16;               // elements of a cache line

}  // namespace vit
