// The layers between the attentions, for a panel of rows at a time: what they make stays in the first caches.
#pragma once
#include <cmath>

#include "clock.h"
#include "functions.h"
#include "model.h"

namespace vit {

// Fetches some cache lines at every call, from `next` on.
struct Fetch {
  const Number*& next;
  int lines;

  void operator()() const {
    for (int line = 0; line < lines; ++line, next += kLine) _mm_prefetch(next, _MM_HINT_T0);
  }
};

// Calls finish(row, column, values) for 16 outputs of each of the panel's rows at a time, bias added.
// The next strip's weights, which come from far where a model is larger than the caches, are fetched evenly:
// half of them beside the products, half beside what follows.
template <int planes, class Finish>
inline void apply(const Linear& layer, const Rows& rows, const Panel& panel, Finish finish) {
  const During finishing(kFinishing);
  alignas(64) float sums[kMostRows * kLanes];
  const int depth = layer.inputs / kDepth, strip = depth * planes * kTile, count = panel.rows;
  const int each_step = planes * kTile / kLine / 2, each_row = (depth * each_step + count - 1) / count;
  const Number *right = layer.tiles, *next = right + strip;
  const Fetch beside_products{next, each_step}, beside_rows{next, each_row};
  for (int column = 0; column < layer.outputs; column += kLanes, right += strip, next = right + strip) {
    {
      const During products(kProducts);
      multiply<planes>(panel, rows, right, depth, sums, kLanes, beside_products);
    }
    const Lanes bias = load(layer.bias + column);
    for (int row = 0; row < count; ++row) {
      beside_rows();
      finish(row, column, add(load(sums + row * kLanes), bias));
    }
  }
}

// (x - mean) / deviation of one row of `width`; calls use(column, values).
template <class Use>
inline void normalise(const float* row, int width, Use use) {
  Lanes sum = zeros(), squares = zeros();
  for (int column = 0; column < width; column += kLanes)
    sum = add(sum, load(row + column));
  const Lanes mean = all(sum_of(sum) / width);
  for (int column = 0; column < width; column += kLanes) {
    const Lanes difference = sub(load(row + column), mean);
    squares = mul_add(difference, difference, squares);
  }
  const Lanes scale = all(1.0f / std::sqrt(sum_of(squares) / width + 1e-6f));
  for (int column = 0; column < width; column += kLanes)
    use(column, mul(sub(load(row + column), mean), scale));
}

// The depthwise 3 x 3 convolution of one patch, of an image whose patches begin at `image`; zeros outside.
inline void convolve(const Block& block, const float* image, int side, int patch, int width, float* result) {
  const int y = patch / side, x = patch % side;
  for (int column = 0; column < width; column += kLanes) {
    Lanes sum = load(block.taps_bias + column);
    for (int dy = y > 0 ? -1 : 0; dy <= (y < side - 1 ? 1 : 0); ++dy)
      for (int dx = x > 0 ? -1 : 0; dx <= (x < side - 1 ? 1 : 0); ++dx) {
        const float* tap = block.taps + (3 * dy + dx + 4) * width + column;
        const float* from = image + (patch + dy * side + dx) * width + column;
        sum = mul_add(load(tap), load(from), sum);
      }
    store(result + column, sum);
  }
}

// A patch's pixels in the order of the weights, channel by channel; 0 to 255 are exact in bfloat16.
inline void gather_pixels(const uint8_t* image, const Model& model, int patch, Number* row) {
  const int size = model.size_px, edge = model.patch_px, side = size / edge;
  const uint8_t* corner = image + (patch / side) * edge * size + (patch % side) * edge;
  for (int channel = 0; channel < 3; ++channel)
    for (int y = 0; y < edge; ++y)
      for (int x = 0; x < edge; ++x)
        *row++ = to_number(corner[(channel * size + y) * size + x]);
}

}  // namespace vit
