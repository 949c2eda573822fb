// No layer has weights of 8 bits.
#pragma once
#include "strips.h"

namespace vit {

constexpr bool kQuantises = false;

// A panel's rows as layers take them.
template <int planes>
struct Operand {
  const Rows rows;

  Operand(const Linear&, const Rows& rows, const Panel&) : rows(rows) {}
};

}  // namespace vit
