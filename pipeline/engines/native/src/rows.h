// Rows of activations, the left operand of a product.
#pragma once
#include "operands.h"

namespace vit {

// The second plane, where there is one, begins `plane` elements behind the first.
struct Rows {
  Number* data;
  size_t stride, plane;

  Number* at(size_t row, size_t column = 0) const { return data + row * stride + column; }
  Rows from(size_t row, size_t column = 0) const { return {at(row, column), stride, plane}; }
};

}  // namespace vit
