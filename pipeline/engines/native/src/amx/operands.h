// What products take, and what activations are kept in: bfloat16, by tiles.
#pragma once
#include "lanes.h"

namespace vit {

using Number = uint16_t;
constexpr int kDepth = 32;              // inputs that a tile covers
constexpr int kTile = kDepth * kLanes;  // elements of a tile of the right operand
constexpr int kMostPlanes = 2;          // numbers that a value is kept in

}  // namespace vit
