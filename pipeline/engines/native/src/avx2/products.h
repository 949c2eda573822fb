// Matrix products of float32 on AVX2 and FMA: six rows by sixteen columns of sums stay in the registers.
#pragma once
#include <algorithm>

#include "rows.h"

namespace vit {

constexpr int kDepth = 4;               // inputs that are worked on between two calls of `between`
constexpr int kTile = kDepth * kLanes;  // elements of the right operand for so many inputs
constexpr int kLine = 16;               // elements of a cache line
constexpr int kGroup = 6;               // rows at a time: 12 of 16 registers are sums
constexpr int kMostRows = 12 * kGroup;
constexpr int kQueries = 8 * kGroup;    // at a time, so that their scores stay in the second cache
constexpr int kMostPlanes = 1;  // numbers that a value is kept in
template <int planes>
constexpr bool kFine = true;  // whether what is computed between products is as near as float32

template <int planes>
inline void put(const Rows& rows, int row, int column, Lanes values) {
  store_unaligned(rows.at(row, column), values);
}

inline Number to_number(uint8_t pixel) { return pixel; }

// Keys of a head, of `steps` times `kDepth` inputs, are turned: tokens are columns, 16 of them side by side.
// 16 dimensions of one token, beginning at `dimension`.
template <int planes>
inline void put_key(Number* keys, int steps, int token, int dimension, Lanes values) {
  alignas(64) float each[kLanes];
  store(each, values);
  Number* first = keys + size_t(token / kLanes) * steps * kTile + dimension * kLanes + token % kLanes;
  for (int index = 0; index < kLanes; ++index) first[index * kLanes] = each[index];
}

// 16 dimensions of one token, beginning at `dimension`, of `steps` times `kDepth` tokens.
template <int planes>
inline void put_value(Number* values_of_head, int steps, int token, int dimension, Lanes values) {
  store(values_of_head + size_t(dimension / kLanes) * steps * kTile + token * kLanes, values);
}

// Rows that are worked on together.
struct Panel {
  int first, rows;
};

// Every process may use these instructions.
inline int prepare() { return 0; }
inline void release() {}

// As many as there is memory for, whatever their bytes: a row is read once for 16 outputs of it, which the second
// cache can follow, and the more rows, the fewer times the weights are read.
inline int rows_of_panel(size_t) { return kMostRows; }

// Calls use(panel) for panels of at most `most` rows that make up the rows.
template <class Use>
inline void each_panel(int first, int rows, int most, Use use) {
  for (int some; rows > 0; first += some, rows -= some) {
    some = std::min(rows, most);
    use(Panel{first, some});
  }
}

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
template <int rows, class Between>
inline void multiply(const Number* left, size_t stride, const Number* right, int depth, float* result, size_t width,
                     Between between) {
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

// The same for the rows of a panel. Calls between() after each of the `depth` steps of its first rows.
template <int planes, class Between>
inline void multiply(const Panel& panel, const Rows& a, const Number* right, int depth, float* result, size_t width,
                     Between between) {
  const auto some = [&]<int rows>(int row, auto call) {
    multiply<rows>(a.at(row), a.stride, right, depth, result + row * width, width, call);
  };
  const auto nothing = [] {};
  int row = 0;
  for (; row + kGroup <= panel.rows; row += kGroup) {
    if (row == 0) some.template operator()<kGroup>(row, between);
    else some.template operator()<kGroup>(row, nothing);
  }
  switch (panel.rows - row) {
    case 1: return some.template operator()<1>(row, nothing);
    case 2: return some.template operator()<2>(row, nothing);
    case 3: return some.template operator()<3>(row, nothing);
    case 4: return some.template operator()<4>(row, nothing);
    case 5: return some.template operator()<5>(row, nothing);
  }
}

}  // namespace vit
