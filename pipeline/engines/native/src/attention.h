// Softmax attention of one head: scores of a few queries, their shares, and the values weighed by them.
#pragma once
#include "layers.h"

namespace vit {

// The scores of some tiles of queries and the shares that they become; every thread has its own.
class Scores {
 public:
  explicit Scores(const Model& m)
      : sizes_(m),
        width_((sizes_.tokens / kLanes + 1) * kLanes),
        scores_(size_t(kQueries) * width_),
        shares_(kQueries, std::max(sizes_.value_steps * kDepth, width_), m.planes) {}

  // A panel of queries of one head to its rows of `result`.
  template <int planes>
  void attend(const Rows& queries, const Panel& panel, const Number* keys, const Number* values,
              const Rows& result) const {
    constexpr int kWidth = kStrips * kLanes;
    alignas(64) float sums[kQueries * kWidth];
    float scale[kQueries];
    {
      const During products(kProducts);
      const int depth = sizes_.key_steps(), strip = depth * planes * kTile;
      some_strips(sizes_.key_tiles, [&]<int strips>(int first) {
        float* const to = scores_.get() + first * kLanes;
        multiply<planes, strips>(panel, queries, keys + first * strip, strip, depth, to, width_, [] {});
      });
    }
    for (int row = 0; row < panel.rows; ++row) scale[row] = exponentiate<planes>(row);
    const int depth = sizes_.value_steps, strip = depth * planes * kTile;
    some_strips(sizes_.head / kLanes, [&]<int strips>(int first) {
      {
        const During products(kProducts);
        multiply<planes, strips>(panel, shares_.rows(), values + first * strip, strip, depth, sums, kWidth, [] {});
      }
      for (int row = 0; row < panel.rows; ++row)
        for (int at = 0; at < strips; ++at)
          put<planes>(result, row, (first + at) * kLanes,
                      mul(load(sums + row * kWidth + at * kLanes), all(scale[row])));
    });
  }

 private:
  // One row's scores to exponentials; returns one over their sum. Behind the last token shares stay 0. The rest
  // of a vector, for which there is always room, may be empty.
  template <int planes>
  float exponentiate(int row) const {
    const float* from = scores_.get() + size_t(row) * width_;
    const int whole = sizes_.tokens / kLanes * kLanes;
    const Mask rest = first_lanes(sizes_.tokens - whole);
    Lanes largest = load_or(all(-INFINITY), rest, from + whole);
    for (int token = 0; token < whole; token += kLanes)
      largest = max(largest, load(from + token));
    const Lanes base = all(1.44269504f), top = all(1.44269504f * largest_of(largest));
    const auto power = [&](int token) {
      return power_of_two<kFine<planes>>(mul_sub(load(from + token), base, top));
    };
    const Rows shares = shares_.rows();
    Lanes sum = keep(rest, power(whole));
    put<planes>(shares, row, whole, sum);
    for (int token = 0; token < whole; token += kLanes) {
      const Lanes share = power(token);
      sum = add(sum, share);
      put<planes>(shares, row, token, share);
    }
    return 1.0f / sum_of(sum);
  }

  const Sizes sizes_;
  const int width_;
  const Buffer<float> scores_;
  const RowBuffer shares_;
};

}  // namespace vit
