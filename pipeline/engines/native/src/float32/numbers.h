// Activations in float32.
#pragma once
#include "rows.h"

namespace vit {

template <int planes>
constexpr bool kFine = true;  // whether what is computed between products is as near as float32

template <int planes>
inline void put(const Rows& rows, int row, int column, Lanes values) {
  store_unaligned(rows.at(row, column), values);
}

template <int planes>
inline Lanes get(const Rows& rows, int row, int column) {
  return load_unaligned(rows.at(row, column));
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

}  // namespace vit
