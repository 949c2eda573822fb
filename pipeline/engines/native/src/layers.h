// The layers between the attentions, for a panel of rows at a time: what they make stays in the first caches.
#pragma once
#include <cmath>

#include "functions.h"
#include "quantised.h"

namespace vit {

// Calls finish(row, column, values) for 16 outputs of each of the panel's rows at a time, bias added.
template <int planes, class Finish>
inline void apply(const Linear& layer, const Operand<planes>& operand, const Panel& panel, Finish finish) {
  const During finishing(kFinishing);
  if constexpr (kQuantises)
    if (layer.scales) return apply_quantised<planes>(layer, operand, panel, finish);
  constexpr int kWidth = kStrips * kLanes;
  alignas(64) float sums[kMostRows * kWidth];
  const int depth = layer.inputs / kDepth, strip = depth * planes * kTile;
  each_strip(static_cast<const Number*>(layer.tiles), planes * kTile, depth, layer.outputs, panel.rows,
             [&]<int strips>(const Number* right, auto between) {
               multiply<planes, strips>(panel, operand.rows, right, strip, depth, sums, kWidth, between);
             },
             [&](int row, int column, int at) {
               finish(row, column, add(load(sums + row * kWidth + at * kLanes), load(layer.bias + column)));
             });
}

// (x - mean) / deviation of one row of `width`; calls use(column, values), which may write to the row there.
template <class Use>
inline void normalise(const float* row, int width, float epsilon, Use use) {
  Lanes sum = zeros(), squares = zeros();
  for (int column = 0; column < width; column += kLanes)
    sum = add(sum, load(row + column));
  const Lanes mean = all(sum_of(sum) / width);
  for (int column = 0; column < width; column += kLanes) {
    const Lanes difference = sub(load(row + column), mean);
    squares = mul_add(difference, difference, squares);
  }
  const Lanes scale = all(1.0f / std::sqrt(sum_of(squares) / width + epsilon));
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
