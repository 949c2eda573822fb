// The product of a few rows on AVX-512: twelve by two times sixteen columns of sums stay in the registers.
#pragma once
#include "rows.h"

namespace vit {

constexpr int kGroup = 12;  // rows at a time: enough that none waits for its own sum; more gain nothing
// Of 16 outputs, at a time: a processor that starts two products a cycle loads no more than two operands, and with one
// strip every product would load a value of its own.
constexpr int kStrips = 2;

// result (rows, 16 * strips) in rows of `width` = as many rows of the left operand times `depth` right tiles of each
// strip, which lie `strip` elements apart, a tile of as many inputs as four products take.
template <int rows, int strips, class Product, class Between>
[[gnu::noinline]] void multiply(const typename Product::Left* left, size_t stride,
                                const typename Product::Right* right, size_t strip, int depth,
                                typename Product::Result* result, size_t width, Between between) {
  constexpr int kStep = 4 * Product::kInputs;
  typename Product::Sums sums[rows][strips];
#pragma GCC unroll 12
  for (auto& row : sums)
#pragma GCC unroll 2
    for (auto& sum : row) sum = Product::none();
  const auto *top = left, *middle = left + 4 * stride, *bottom = left + 8 * stride;
  for (size_t next = stride, third = 3 * stride; depth > 0; --depth) {
    asm("" : "+r"(top), "+r"(middle), "+r"(bottom), "+r"(next), "+r"(third));  // Nor more addresses than these.
#pragma GCC unroll 4
    for (int input = 0; input < kStep; input += Product::kInputs) {
#pragma GCC unroll 12
      for (int row = 0; row < rows; ++row) {
        const auto* of_four = row < 4 ? top : row < 8 ? middle : bottom;
        const auto* values = of_four + (row % 4 == 3 ? third : row % 4 * next) + input;
#pragma GCC unroll 2
        for (int of = 0; of < strips; ++of)
          sums[row][of] = Product::add(sums[row][of], values, right + of * strip + input * kLanes);
      }
    }
    top += kStep, middle += kStep, bottom += kStep, right += kStep * kLanes;
    between();
  }
#pragma GCC unroll 12
  for (int row = 0; row < rows; ++row)
#pragma GCC unroll 2
    for (int of = 0; of < strips; ++of) Product::keep(result + row * width + of * kLanes, sums[row][of]);
}

}  // namespace vit
