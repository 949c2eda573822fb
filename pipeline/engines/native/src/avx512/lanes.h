// Vectors of 16 float32, on AVX-512.
#pragma once
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace vit {

using Lanes = __m512;
using Mask = __mmask16;
constexpr int kLanes = 16;

// Memory of vectors is aligned to their size, but for what Python hands over.
inline Lanes load(const float* at) { return _mm512_load_ps(at); }
inline Lanes load_unaligned(const float* at) { return _mm512_loadu_ps(at); }
inline void store(float* at, Lanes x) { _mm512_store_ps(at, x); }
inline void store_unaligned(float* at, Lanes x) { _mm512_storeu_ps(at, x); }

inline Lanes zeros() { return _mm512_setzero_ps(); }
inline Lanes all(float x) { return _mm512_set1_ps(x); }
inline Lanes add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
inline Lanes sub(Lanes a, Lanes b) { return _mm512_sub_ps(a, b); }
inline Lanes mul(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
inline Lanes min(Lanes a, Lanes b) { return _mm512_min_ps(a, b); }
inline Lanes max(Lanes a, Lanes b) { return _mm512_max_ps(a, b); }
inline Lanes mul_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }       // a b + c
inline Lanes mul_sub(Lanes a, Lanes b, Lanes c) { return _mm512_fmsub_ps(a, b, c); }       // a b - c
inline Lanes neg_mul_add(Lanes a, Lanes b, Lanes c) { return _mm512_fnmadd_ps(a, b, c); }  // c - a b
inline float sum_of(Lanes x) { return _mm512_reduce_add_ps(x); }
inline float largest_of(Lanes x) { return _mm512_reduce_max_ps(x); }

// One over x, to 12 bits or more.
inline Lanes estimate_inverse(Lanes x) { return _mm512_rcp14_ps(x); }
inline Lanes nearest_whole(Lanes x) { return _mm512_roundscale_ps(x, 0); }
// x times 2^whole, for whole numbers from -126 to 127.
inline Lanes scale_by_power(Lanes x, Lanes whole) { return _mm512_scalef_ps(x, whole); }

// A mask of the first `count` lanes, of all where it is more.
inline Mask first_lanes(int count) { return count >= kLanes ? 0xFFFF : (1u << count) - 1; }
inline Lanes keep(Mask mask, Lanes x) { return _mm512_maskz_mov_ps(mask, x); }
inline Lanes load_or(Lanes otherwise, Mask mask, const float* at) { return _mm512_mask_load_ps(otherwise, mask, at); }
inline void store_unaligned(float* at, Mask mask, Lanes x) { _mm512_mask_storeu_ps(at, mask, x); }

}  // namespace vit
