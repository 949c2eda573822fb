// The layers between the attentions, for a panel of rows at a time: what they make stays in the first caches.
#pragma once
#include <cmath>

#include "model.h"

namespace vit {

// Calls finish(row, column, values) for 16 outputs of each of the panel's rows at a time, bias added.
// The next strip's weights, which come from far where a model is larger than the caches, are fetched evenly:
// half of them beside the products, half beside what follows.
template <int planes, class Finish>
inline void apply(const Linear& layer, const Rows& rows, const Panel& panel, Finish finish) {
  alignas(64) float sums[kMostRows * kLanes];
  const int depth = layer.inputs / kDepth, strip = depth * planes * kTile, count = panel.rows;
  const int each_step = planes * kTile / kLine / 2, each_row = (depth * each_step + count - 1) / count;
  const bf16 *right = layer.tiles, *next = right + strip;
  const auto fetch = [&](int lines) {
    for (int line = 0; line < lines; ++line, next += kLine) _mm_prefetch(next, _MM_HINT_T0);
  };
  for (int column = 0; column < layer.outputs; column += kLanes, right += strip, next = right + strip) {
    multiply<planes>(panel.tiles, rows, panel.height, right, depth, sums, kLanes, [&] { fetch(each_step); });
    const __m512 bias = _mm512_load_ps(layer.bias + column);
    for (int row = 0; row < count; ++row) {
      fetch(each_row);
      finish(row, column, _mm512_add_ps(_mm512_load_ps(sums + row * kLanes), bias));
    }
  }
}

template <int planes>
inline void put(const Rows& rows, int row, int column, __m512 value) {
  split<planes>(value, [&](int plane, __m256i part) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows.at(row, column) + plane * rows.plane), part);
  });
}

// (x - mean) / deviation of one row of `width`; calls use(column, values).
template <class Use>
inline void normalise(const float* row, int width, Use use) {
  __m512 sum = _mm512_setzero_ps(), squares = _mm512_setzero_ps();
  for (int column = 0; column < width; column += kLanes)
    sum = _mm512_add_ps(sum, _mm512_load_ps(row + column));
  const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
  for (int column = 0; column < width; column += kLanes) {
    const __m512 difference = _mm512_sub_ps(_mm512_load_ps(row + column), mean);
    squares = _mm512_fmadd_ps(difference, difference, squares);
  }
  const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / width + 1e-6f));
  for (int column = 0; column < width; column += kLanes)
    use(column, _mm512_mul_ps(_mm512_sub_ps(_mm512_load_ps(row + column), mean), scale));
}

// The depthwise 3 x 3 convolution of one patch, of an image whose patches begin at `image`; zeros outside.
inline void convolve(const Block& block, const float* image, int side, int patch, int width, float* result) {
  const int y = patch / side, x = patch % side;
  for (int column = 0; column < width; column += kLanes) {
    __m512 sum = _mm512_load_ps(block.taps_bias + column);
    for (int dy = y > 0 ? -1 : 0; dy <= (y < side - 1 ? 1 : 0); ++dy)
      for (int dx = x > 0 ? -1 : 0; dx <= (x < side - 1 ? 1 : 0); ++dx) {
        const float* tap = block.taps + (3 * dy + dx + 4) * width + column;
        const float* from = image + (patch + dy * side + dx) * width + column;
        sum = _mm512_fmadd_ps(_mm512_load_ps(tap), _mm512_load_ps(from), sum);
      }
    _mm512_store_ps(result + column, sum);
  }
}

// A patch's pixels in the order of the weights, channel by channel; 0 to 255 are exact in bfloat16.
inline void gather_pixels(const uint8_t* image, const Model& model, int patch, bf16* row) {
  const int size = model.size_px, edge = model.patch_px, side = size / edge;
  const uint8_t* corner = image + (patch / side) * edge * size + (patch % side) * edge;
  for (int channel = 0; channel < 3; ++channel)
    for (int y = 0; y < edge; ++y)
      for (int x = 0; x < edge; ++x) {
        const float value = corner[(channel * size + y) * size + x];
        uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        *row++ = bits >> 16;
      }
}

}  // namespace vit
