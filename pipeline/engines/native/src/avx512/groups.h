// The product of a few rows on AVX-512: twelve by sixteen columns of sums stay in the registers.
#pragma once
#include "rows.h"

namespace vit {

constexpr int kGroup = 12;  // rows at a time: enough that none waits for its own sum; more gain nothing

// result (rows, 16) in rows of `width` floats = as many rows of the left operand times `depth` right tiles.
template <int rows, class Between>
[[gnu::noinline]] void multiply(const Number* left, size_t stride, const Number* right, int depth, float* result,
                                size_t width, Between between) {
  Lanes sums[rows];
#pragma GCC unroll 12
  for (Lanes& sum : sums) sum = zeros();
  const Number *top = left, *middle = left + 4 * stride, *bottom = left + 8 * stride;
  for (size_t next = stride, third = 3 * stride; depth > 0; --depth) {
    asm("" : "+r"(top), "+r"(middle), "+r"(bottom), "+r"(next), "+r"(third));  // Nor more addresses than these.
#pragma GCC unroll 4
    for (int input = 0; input < kDepth; input += kTogether) {
#pragma GCC unroll 12
      for (int row = 0; row < rows; ++row) {
        const Number* of_four = row < 4 ? top : row < 8 ? middle : bottom;
        const Number* values = of_four + (row % 4 == 3 ? third : row % 4 * next) + input;
        sums[row] = add_product(sums[row], values, right + input * kLanes);
      }
    }
    top += kDepth, middle += kDepth, bottom += kDepth, right += kTile;
    between();
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) store(result + row * width, sums[row]);
}

}  // namespace vit
