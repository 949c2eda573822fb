// The outputs of a layer, 16 at a time, while the weights of the next 16 are on their way.
#pragma once
#include "clock.h"
#include "model.h"

namespace vit {

// Fetches some cache lines at every call, from `next` on.
template <class Weight>
struct Fetch {
  const Weight*& next;
  int lines;

  void operator()() const {
    constexpr int kLine = 64 / sizeof(Weight);
    for (int line = 0; line < lines; ++line, next += kLine) _mm_prefetch(next, _MM_HINT_T0);
  }
};

// Calls multiply(right, between) for each strip of `depth` tiles of `tile` weights, and then finish(row, column)
// for each of `rows`. The next strip's weights, which come from far where a model is larger than the caches, are
// fetched evenly: half of them beside the products, half beside what follows.
template <class Weight, class Multiply, class Finish>
inline void each_strip(const Weight* right, int tile, int depth, int outputs, int rows, Multiply multiply,
                       Finish finish) {
  const int strip = depth * tile, each_step = tile * sizeof(Weight) / 64 / 2;
  const int each_row = (depth * each_step + rows - 1) / rows;
  const Weight* next = right + strip;
  const Fetch<Weight> beside_products{next, each_step}, beside_rows{next, each_row};
  for (int column = 0; column < outputs; column += kLanes, right += strip, next = right + strip) {
    {
      const During products(kProducts);
      multiply(right, beside_products);
    }
    for (int row = 0; row < rows; ++row) {
      beside_rows();
      finish(row, column);
    }
  }
}

}  // namespace vit
