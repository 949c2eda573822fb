// Activations in bfloat16: in one plane, or in two that add up to float32.
#pragma once
#include <cstring>

#include "rows.h"

namespace vit {

template <int planes>
constexpr bool kFine = planes == 2;  // whether what is computed between products is as near as float32

inline __m256i to_bf16(Lanes values) { return (__m256i)_mm512_cvtneps_pbh(values); }

inline Lanes to_float(__m256i values) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

// Calls use(plane, bfloat16 values): the values rounded and, of two planes, what the rounding left.
template <int planes, class Use>
inline void split(Lanes values, Use use) {
  const __m256i rounded = to_bf16(values);
  use(0, rounded);
  if constexpr (planes == 2) use(1, to_bf16(sub(values, to_float(rounded))));
}

template <int planes>
inline void put(const Rows& rows, int row, int column, Lanes value) {
  split<planes>(value, [&](int plane, __m256i part) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rows.at(row, column) + plane * rows.plane), part);
  });
}

// Of one plane.
template <int planes>
inline Lanes get(const Rows& rows, int row, int column) {
  return to_float(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows.at(row, column))));
}

// 0 to 255 are exact in bfloat16.
inline Number to_number(uint8_t pixel) {
  const float value = pixel;
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits >> 16;
}

// Keys of a head of `steps` tiles are turned: a right tile has tokens as columns. 16 dimensions of one token,
// beginning at `dimension`; tiles of fewer lie end to end where there is one plane.
template <int planes>
inline void put_key(Number* keys, int steps, int token, int dimension, Lanes values) {
  static_assert(planes == 1 || kDepth >= kLanes);
  const __m256i rows = _mm256_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112);
  const int tile = token / kLanes * steps + dimension / kDepth;
  Number* first = keys + size_t(tile) * planes * kTile + dimension % kDepth * kLanes + token % kLanes * 2;
  split<planes>(values, [&](int plane, __m256i part) {
    _mm256_i32scatter_epi32(reinterpret_cast<int*>(first + plane * kTile), rows, part, 4);
  });
}

// Values stand in pairs of tokens, in `steps` tiles for all. 16 dimensions of one token, beginning at `dimension`.
template <int planes>
inline void put_value(Number* values_of_head, int steps, int token, int dimension, Lanes values) {
  const int tile = dimension / kLanes * steps + token / kDepth, odd = token % 2;
  Number* row = values_of_head + size_t(tile) * planes * kTile + (token - odd) % kDepth * kLanes;
  const __mmask32 half = odd ? 0xAAAAAAAA : 0x55555555;
  split<planes>(values, [&](int plane, __m256i part) {
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(part), 16 * odd);
    _mm512_mask_storeu_epi16(row + plane * kTile, half, wide);
  });
}

}  // namespace vit
