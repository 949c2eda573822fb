// The two directions of the resize, on AVX-512.
#pragma once
#include "model.h"

namespace vit {

// Along `count` rows, from `from_px` to `to_px` pixels each. Four taps at a time: bytes 0 and 2, then 1 and 3.
inline void resize_rows(const Resize& r, const uint8_t* rows, int count, uint8_t* result) {
  const __m512i half = _mm512_set1_epi32(1 << (r.shift - 1)), bytes = _mm512_set1_epi32(0x00FF00FF);
  for (int y = 0; y < count; ++y, rows += r.from_px, result += r.to_px)
    for (int x = 0; x < r.to_px; x += kLanes) {
      const Mask mask = first_lanes(r.to_px - x);
      const __m512i first = _mm512_maskz_loadu_epi32(mask, r.first + x);
      const int16_t(*weights)[2] = r.weights + x;
      __m512i sum = half;
      for (int tap = 0; tap < r.taps; tap += 4, weights += 2 * r.to_px) {
        const __m512i four = _mm512_mask_i32gather_epi32(half, mask, first, rows + tap, 1);
        const __m512i even = _mm512_and_si512(four, bytes);
        const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(four, 8), bytes);
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(even, _mm512_maskz_loadu_epi32(mask, weights)));
        sum = _mm512_add_epi32(sum, _mm512_madd_epi16(odd, _mm512_maskz_loadu_epi32(mask, weights + r.to_px)));
      }
      const __m512i value = _mm512_max_epi32(_mm512_srai_epi32(sum, r.shift), _mm512_setzero_si512());
      _mm_mask_storeu_epi8(result + x, mask, _mm512_cvtusepi32_epi8(value));
    }
}

// One row of the result from the `taps` rows of `to_px` pixels that begin at `rows`.
inline void resize_column(const Resize& r, const uint8_t* rows, int y, uint8_t* result) {
  for (int x = 0; x < r.to_px; x += kLanes) {
    const Mask mask = first_lanes(r.to_px - x);
    __m512i sum = _mm512_set1_epi32(1 << (r.shift - 1));
    for (int tap = 0; tap < r.taps; ++tap) {
      const int16_t weight = r.weights[(tap / 4 * 2 + tap % 2) * r.to_px + y][tap % 4 / 2];
      const __m512i pixels = _mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, rows + tap * r.to_px + x));
      sum = _mm512_add_epi32(sum, _mm512_mullo_epi32(pixels, _mm512_set1_epi32(weight)));
    }
    const __m512i value = _mm512_max_epi32(_mm512_srai_epi32(sum, r.shift), _mm512_setzero_si512());
    _mm_mask_storeu_epi8(result + x, mask, _mm512_cvtusepi32_epi8(value));
  }
}

}  // namespace vit
