// The antialiased bilinear resize of uint8 images that torchvision does, to the same pixels: along the rows
// first, then along the columns, each by weights of 16 bits (`resizing.py` makes them).
#pragma once
#include "resize_lines.h"

namespace vit {

// Rows `begin` to `end` of the resized image; `between` has room for a canvas.
inline void resize(const Resize& r, const uint8_t* canvas, int begin, int end, uint8_t* between, uint8_t* image) {
  const int first = r.first[begin], count = r.first[end - 1] + r.taps - first;
  for (int channel = 0; channel < 3; ++channel) {
    resize_rows(r, canvas + (channel * r.from_px + first) * r.from_px, count, between);
    for (int y = begin; y < end; ++y)
      resize_column(r, between + (r.first[y] - first) * r.to_px, y, image + (channel * r.to_px + y) * r.to_px);
  }
}

}  // namespace vit
