// The product of a few rows on AVX-512: twelve by sixteen columns of sums stay in the registers.
#pragma once
#include "rows.h"

namespace vit {

constexpr int kGroup = 12;  // rows at a time: enough that none waits for its own sum; more gain nothing

// result (rows, 16) in rows of `width` = as many rows of the left operand times `depth` right tiles, each of as
// many inputs as four products take.
template <int rows, class Product, class Between>
[[gnu::noinline]] void multiply(const typename Product::Left* left, size_t stride,
                                const typename Product::Right* right, int depth, typename Product::Result* result,
                                size_t width, Between between) {
  constexpr int kStep = 4 * Product::kInputs;
  typename Product::Sums sums[rows];
#pragma GCC unroll 12
  for (auto& sum : sums) sum = Product::none();
  const auto *top = left, *middle = left + 4 * stride, *bottom = left + 8 * stride;
  for (size_t next = stride, third = 3 * stride; depth > 0; --depth) {
    asm("" : "+r"(top), "+r"(middle), "+r"(bottom), "+r"(next), "+r"(third));  // Nor more addresses than these.
#pragma GCC unroll 4
    for (int input = 0; input < kStep; input += Product::kInputs) {
#pragma GCC unroll 12
      for (int row = 0; row < rows; ++row) {
        const auto* of_four = row < 4 ? top : row < 8 ? middle : bottom;
        const auto* values = of_four + (row % 4 == 3 ? third : row % 4 * next) + input;
        sums[row] = Product::add(sums[row], values, right + input * kLanes);
      }
    }
    top += kStep, middle += kStep, bottom += kStep, right += kStep * kLanes;
    between();
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row) Product::keep(result + row * width, sums[row]);
}

}  // namespace vit
