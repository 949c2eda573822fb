// Matrix products on vectors: of `kGroup` rows at a time, whose sums stay in the registers.
#pragma once
#include <algorithm>

#include "groups.h"
#include "numbers.h"

namespace vit {

constexpr int kMostRows = 72;
constexpr int kQueries = 48;  // at a time, so that their scores stay in the second cache

// Weights go to the second cache: those in use and the next ones are too many for the first, beside the rows.
constexpr _mm_hint kFetchTo = _MM_HINT_T1;
constexpr bool kFetchesBesideRows = false;

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

// `rows` in parts of equal size, but for the last, of at most `most`.
inline int equal_part(int rows, int most) {
  const int parts = (rows + most - 1) / most;
  return (rows + parts - 1) / parts;
}

// Calls use(panel) for panels of at most `most` rows that make up the rows. Of equal size, since one of a few rows
// reads the weights as others do.
template <class Use>
inline void each_panel(int first, int rows, int most, Use use) {
  const int each = equal_part(std::max(rows, 1), most);
  for (int some; rows > 0; first += some, rows -= some) {
    some = std::min(rows, each);
    use(Panel{first, some});
  }
}

// The product of `count` rows, of at most `most`.
template <int most, int strips, class Product, class Between>
inline void multiply_group(int count, const typename Product::Left* left, size_t stride,
                           const typename Product::Right* right, size_t strip, int depth,
                           typename Product::Result* result, size_t width, Between between) {
  if (count == most) multiply<most, strips, Product>(left, stride, right, strip, depth, result, width, between);
  else if constexpr (most > 1)
    multiply_group<most - 1, strips, Product>(count, left, stride, right, strip, depth, result, width, between);
}

// The same for any number of rows, in groups of equal size, since a few rows wait for their own sums. Calls
// between() after each of the `depth` steps of the first rows.
template <int strips, class Product, class Between>
inline void multiply_rows(int rows, const typename Product::Left* left, size_t stride,
                          const typename Product::Right* right, size_t strip, int depth,
                          typename Product::Result* result, size_t width, Between between) {
  const int each = equal_part(rows, kGroup);
  multiply_group<kGroup, strips, Product>(each, left, stride, right, strip, depth, result, width, between);
  for (int row = each; row < rows; row += each)
    multiply_group<kGroup, strips, Product>(std::min(each, rows - row), left + row * stride, stride, right, strip,
                                            depth, result + row * width, width, [] {});
}

// The same for the rows of a panel.
template <int planes, int strips, class Between>
inline void multiply(const Panel& panel, const Rows& a, const Number* right, size_t strip, int depth, float* result,
                     size_t width, Between between) {
  multiply_rows<strips, Product>(panel.rows, a.at(0), a.stride, right, strip, depth, result, width, between);
}

}  // namespace vit
