// Softmax attention of one head: scores of a few queries, their shares, and the values weighed by them.
#pragma once
#include "layers.h"

namespace vit {

constexpr int kQueries = 48;  // at a time, so that their scores stay in the first cache

// Keys are turned: a right tile has tokens as columns. 16 dimensions of one token, beginning at `dimension`.
template <int planes>
inline void put_key(bf16* keys, const Sizes& sizes, int token, int dimension, __m512 values) {
  const __m256i rows = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112);
  const int tile = token / kLanes * (sizes.head / kDepth) + dimension / kDepth;
  bf16* first = keys + size_t(tile) * planes * kTile + dimension % kDepth * kLanes + token % kLanes * 2;
  split<planes>(values, [&](int plane, __m256i part) {
    _mm256_i32scatter_epi32(reinterpret_cast<int*>(first + plane * kTile), rows, part, 4);
  });
}

// Values stand in pairs of tokens. 16 dimensions of one token, beginning at `dimension`.
template <int planes>
inline void put_value(bf16* values_of_head, const Sizes& sizes, int token, int dimension, __m512 values) {
  const int tile = dimension / kLanes * sizes.value_steps + token / kDepth, odd = token % 2;
  bf16* row = values_of_head + size_t(tile) * planes * kTile + (token - odd) % kDepth * kLanes;
  const __mmask32 half = odd ? 0xAAAAAAAA : 0x55555555;
  split<planes>(values, [&](int plane, __m256i part) {
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16 * odd);
    _mm512_mask_storeu_epi16(row + plane * kTile, half, wide);
  });
}

// The scores of some tiles of queries and the shares that they become; every thread has its own.
class Scores {
 public:
  explicit Scores(const Model& m)
      : sizes_(m),
        width_(sizes_.key_tiles * kLanes),
        scores_(size_t(kQueries) * width_),
        shares_(kQueries, sizes_.value_steps * kDepth, m.planes) {}

  // A panel of queries of one head to its rows of `result`.
  template <int planes>
  void attend(const Rows& queries, const Panel& panel, const bf16* keys, const bf16* values,
              const Rows& result) const {
    alignas(64) float sums[kQueries * kLanes];
    float scale[kQueries];
    const int steps = sizes_.head / kDepth;
    for (int tile = 0; tile < sizes_.key_tiles; ++tile, keys += steps * planes * kTile)
      multiply<planes>(panel.tiles, queries, panel.height, keys, steps, scores_.get() + tile * kLanes, width_, [] {});
    for (int row = 0; row < panel.rows; ++row) scale[row] = exponentiate<planes>(row);
    for (int column = 0; column < sizes_.head; column += kLanes, values += sizes_.value_steps * planes * kTile) {
      multiply<planes>(panel.tiles, shares_.rows(), panel.height, values, sizes_.value_steps, sums, kLanes, [] {});
      for (int row = 0; row < panel.rows; ++row)
        put<planes>(result, row, column,
                    _mm512_mul_ps(_mm512_load_ps(sums + row * kLanes), _mm512_set1_ps(scale[row])));
    }
  }

 private:
  // One row's scores to exponentials; returns one over their sum. Behind the last token shares stay 0. There
  // is always a rest of a vector: tokens, a square and one more, are no multiple of 16.
  template <int planes>
  float exponentiate(int row) const {
    const float* from = scores_.get() + size_t(row) * width_;
    const int whole = sizes_.tokens / kLanes * kLanes;
    const __mmask16 rest = first_lanes(sizes_.tokens - whole);
    __m512 largest = _mm512_mask_load_ps(_mm512_set1_ps(-INFINITY), rest, from + whole);
    for (int token = 0; token < whole; token += kLanes)
      largest = _mm512_max_ps(largest, _mm512_load_ps(from + token));
    const __m512 base = _mm512_set1_ps(1.44269504f), top = _mm512_set1_ps(1.44269504f * _mm512_reduce_max_ps(largest));
    const auto power = [&](int token) {
      return power_of_two<planes>(_mm512_fmsub_ps(_mm512_load_ps(from + token), base, top));
    };
    const Rows shares = shares_.rows();
    __m512 sum = _mm512_maskz_mov_ps(rest, power(whole));
    put<planes>(shares, row, whole, sum);
    for (int token = 0; token < whole; token += kLanes) {
      const __m512 share = power(token);
      sum = _mm512_add_ps(sum, share);
      put<planes>(shares, row, token, share);
    }
    return 1.0f / _mm512_reduce_add_ps(sum);
  }

  const Sizes sizes_;
  const int width_;
  const Buffer<float> scores_;
  const RowBuffer shares_;
};

}  // namespace vit
