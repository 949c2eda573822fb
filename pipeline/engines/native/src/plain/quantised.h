// No layer has weights of 8 bits.
#pragma once
#include "strips.h"

namespace vit {

constexpr bool kQuantises = false;

}  // namespace vit
