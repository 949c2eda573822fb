// The two directions of the resize, as the compiler makes them.
#pragma once
#include <algorithm>

#include "model.h"

namespace vit {

inline int weight_of(const Resize& r, int tap, int place) {
  return r.weights[(tap / 4 * 2 + tap % 2) * r.to_px + place][tap % 4 / 2];
}

inline uint8_t to_pixel(const Resize& r, int sum) { return std::clamp(sum >> r.shift, 0, 255); }

// Along `count` rows, from `from_px` to `to_px` pixels each.
inline void resize_rows(const Resize& r, const uint8_t* rows, int count, uint8_t* result) {
  for (int y = 0; y < count; ++y, rows += r.from_px, result += r.to_px)
    for (int x = 0; x < r.to_px; ++x) {
      int sum = 1 << (r.shift - 1);
      for (int tap = 0; tap < r.taps; ++tap) sum += weight_of(r, tap, x) * rows[r.first[x] + tap];
      result[x] = to_pixel(r, sum);
    }
}

// One row of the result from the `taps` rows of `to_px` pixels that begin at `rows`.
inline void resize_column(const Resize& r, const uint8_t* rows, int y, uint8_t* result) {
  for (int x = 0; x < r.to_px; x += kLanes) {
    const int count = std::min(kLanes, r.to_px - x);
    int sums[kLanes];
    std::fill_n(sums, kLanes, 1 << (r.shift - 1));
    for (int tap = 0; tap < r.taps; ++tap) {
      const uint8_t* pixels = rows + tap * r.to_px + x;
      const int weight = weight_of(r, tap, y);
      for (int index = 0; index < count; ++index) sums[index] += weight * pixels[index];
    }
    for (int index = 0; index < count; ++index) result[x + index] = to_pixel(r, sums[index]);
  }
}

}  // namespace vit
