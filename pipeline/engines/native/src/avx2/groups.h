// The product of a few rows on AVX2 and FMA: six by sixteen columns of sums stay in the registers.
#pragma once
#include "rows.h"

namespace vit {

constexpr int kGroup = 6;  // rows at a time: 12 of 16 registers are sums
constexpr int kStrips = 1;  // of 16 outputs, at a time

// One row's sums += one of its values times 16 weights. As an instruction of its own since compilers, left to
// themselves, keep more than fits in the registers.
#define VIT_MULTIPLY(row, from)                                                       \
  if constexpr (rows > row)                                                           \
    asm("vbroadcastss %3, %2\n\tvfmadd231ps %4, %2, %0\n\tvfmadd231ps %5, %2, %1"     \
        : "+x"(low##row), "+x"(high##row), "=&x"(value)                               \
        : "m"(*reinterpret_cast<const Number*>(from + input * sizeof(Number))), "x"(weights.low), "x"(weights.high));
#define VIT_STORE(row) \
  if constexpr (rows > row) store(result + row * width, {low##row, high##row});

// result (rows, 16) in rows of `width` floats = as many rows of the left operand times `depth` right tiles.
template <int rows, int, class, class Between>
[[gnu::noinline]] void multiply(const Number* left, size_t stride, const Number* right, size_t, int depth,
                                float* result, size_t width, Between between) {
  __m256 value, low0, low1, low2, low3, low4, low5, high0, high1, high2, high3, high4, high5;
  low0 = low1 = low2 = low3 = low4 = low5 = high0 = high1 = high2 = high3 = high4 = high5 = _mm256_setzero_ps();
  const char *top = reinterpret_cast<const char*>(left), *bottom = top + 3 * stride * sizeof(Number);
  for (size_t next = stride * sizeof(Number); depth > 0; --depth) {
    asm("" : "+r"(top), "+r"(bottom), "+r"(next));  // Nor more addresses than these.
#pragma GCC unroll 4
    for (int input = 0; input < kDepth; ++input) {
      const Lanes weights = load(right + input * kLanes);
      VIT_MULTIPLY(0, top) VIT_MULTIPLY(1, top + next) VIT_MULTIPLY(2, top + 2 * next)
      VIT_MULTIPLY(3, bottom) VIT_MULTIPLY(4, bottom + next) VIT_MULTIPLY(5, bottom + 2 * next)
    }
    top += kDepth * sizeof(Number), bottom += kDepth * sizeof(Number), right += kTile;
    between();
  }
  VIT_STORE(0) VIT_STORE(1) VIT_STORE(2) VIT_STORE(3) VIT_STORE(4) VIT_STORE(5)
}
#undef VIT_MULTIPLY
#undef VIT_STORE

}  // namespace vit
