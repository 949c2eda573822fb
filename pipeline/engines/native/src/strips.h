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
    for (int line = 0; line < lines; ++line, next += kLine) _mm_prefetch(next, kFetchTo);
  }
};

// Calls take<strips>(first) for `count` strips, kStrips at a time while there are as many left.
template <class Take>
inline void some_strips(int count, Take take) {
  int first = 0;
  for (; first + kStrips <= count; first += kStrips) take.template operator()<kStrips>(first);
  for (; first < count; ++first) take.template operator()<1>(first);
}

// Calls multiply<strips>(right, between) for some strips of `depth` tiles of `tile` weights at a time, and then
// finish(row, column, at) for each of `rows` and of these strips, which `at` counts. The next strips' weights, which
// come from far where a model is larger than the caches, are fetched evenly: beside the products or, where these are
// over too soon, half of them beside what follows.
template <class Weight, class Multiply, class Finish>
inline void each_strip(const Weight* right, int tile, int depth, int outputs, int rows, Multiply multiply,
                       Finish finish) {
  some_strips((outputs + kLanes - 1) / kLanes, [&]<int strips>(int first) {
    const int each_step = strips * tile * sizeof(Weight) / 64 / (kFetchesBesideRows ? 2 : 1);
    const int each_row = kFetchesBesideRows ? (depth * each_step + rows - 1) / rows : 0;
    const Weight *now = right + first * depth * tile, *next = now + strips * depth * tile;
    const Fetch<Weight> beside_products{next, each_step}, beside_rows{next, each_row};
    {
      const During products(kProducts);
      multiply.template operator()<strips>(now, beside_products);
    }
    for (int row = 0; row < rows; ++row) {
      beside_rows();
      for (int at = 0; at < strips; ++at) finish(row, (first + at) * kLanes, at);
    }
  });
}

}  // namespace vit
