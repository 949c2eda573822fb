// Matrix products on AMX tiles, of bfloat16 values in one plane or of float32 values split into two.
//
// Two planes, x = x0 + x1, give x y = x0 y0 + x0 y1 + x1 y0, whose error is some 2^-16 of the product: three
// products of the matrix unit, which together take less time than one of float32 on the vector unit.
#pragma once
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "numbers.h"

namespace vit {

constexpr int kStrips = 1;     // of 16 outputs, at a time
constexpr int kMostTiles = 5;  // of the left operand at a time; as many sums are held
constexpr int kMostRows = kMostTiles * kLanes;
constexpr int kQueries = 48;  // at a time, so that their scores stay in the first cache

constexpr _mm_hint kFetchTo = _MM_HINT_T0;  // The strip in use and the next one stay in the first cache.
constexpr bool kFetchesBesideRows = true;  // Products take too little time for all weights to come.

// Rows that are worked on together: `tiles` of `height`, of which the last may end behind them.
struct Panel {
  int first, rows, tiles, height;
};

// Asks Linux for the tile registers, which a process has only on request; 0 where it gets them.
inline int prepare() {
  constexpr int kRequest = 0x1023, kTileData = 18;
  return static_cast<int>(syscall(SYS_arch_prctl, kRequest, kTileData));
}

// How many rows of so many bytes stay in the first cache beside the weights that they are multiplied with; where
// those are too few to be worth the weights' way, as many as there are sums for.
inline int rows_of_panel(size_t bytes) {
  constexpr int kCached = 28 << 10, kFewest = 32;
  const int rows = kCached / bytes;
  return rows < kFewest ? kMostRows : std::min(rows, kMostRows);
}

// Sets the height of the left tiles and the sums; the thread's own state until `release`.
inline void configure_tiles(int height) {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, unused[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {};
  } config;
  for (int tile : {0, 1, 2, 3, 4, 7}) config.rows[tile] = height;
  config.rows[5] = config.rows[6] = kLanes;
  asm volatile("ldtilecfg %0" ::"m"(config));
}

inline void release() { _tile_release(); }

// Calls use(panel) for panels of at most `most` rows that make up the rows. A tile takes its time whether it
// is full or not: so all panels but the last are.
template <class Use>
inline void each_panel(int first, int rows, int most, Use use) {
  for (int some; rows > 0; first += some, rows -= some) {
    some = rows <= most ? rows : most / kLanes * kLanes;
    const int tiles = (some + kLanes - 1) / kLanes, height = (some + tiles - 1) / tiles;
    configure_tiles(height);
    use(Panel{first, some, tiles, height});
  }
}

// One row of sums += one left tile times the right tiles, of `plane` elements' distance.
#define VIT_MULTIPLY(sum)                          \
  if constexpr (tiles > sum) {                     \
    _tile_loadd(7, left + sum * step, stride);     \
    _tile_dpbf16ps(sum, 7, 5);                     \
    if constexpr (planes == 2) {                   \
      _tile_dpbf16ps(sum, 7, 6);                   \
      _tile_loadd(7, left + sum * step + a.plane, stride); \
      _tile_dpbf16ps(sum, 7, 5);                   \
    }                                              \
  }
#define VIT_STORE(sum) \
  if constexpr (tiles > sum) _tile_stored(sum, result + sum * height * width, width * sizeof(float));

// result (tiles * height, 16) in rows of `width` floats = a times `depth` right tiles, planes side by side.
// Calls between() after each of the `depth` steps.
template <int planes, int tiles, class Between>
inline void multiply(const Rows& a, int height, const Number* right, int depth, float* result, size_t width,
                     Between between) {
  const size_t stride = a.stride * sizeof(Number), step = a.stride * height;
  _tile_zero(0);
  if constexpr (tiles > 1) _tile_zero(1);
  if constexpr (tiles > 2) _tile_zero(2);
  if constexpr (tiles > 3) _tile_zero(3);
  if constexpr (tiles > 4) _tile_zero(4);
  const Number* left = a.data;
  for (int k = 0; k < depth; ++k, left += kDepth, right += planes * kTile) {
    _tile_loadd(5, right, 64);
    if constexpr (planes == 2) _tile_loadd(6, right + kTile, 64);
    VIT_MULTIPLY(0) VIT_MULTIPLY(1) VIT_MULTIPLY(2) VIT_MULTIPLY(3) VIT_MULTIPLY(4)
    between();
  }
  VIT_STORE(0) VIT_STORE(1) VIT_STORE(2) VIT_STORE(3) VIT_STORE(4)
}
#undef VIT_MULTIPLY
#undef VIT_STORE

// The same for the rows of a panel.
template <int planes, int, class Between>
inline void multiply(const Panel& panel, const Rows& a, const Number* right, size_t, int depth, float* result,
                     size_t width, Between between) {
  const int height = panel.height;
  switch (panel.tiles) {
    case 1: return multiply<planes, 1>(a, height, right, depth, result, width, between);
    case 2: return multiply<planes, 2>(a, height, right, depth, result, width, between);
    case 3: return multiply<planes, 3>(a, height, right, depth, result, width, between);
    case 4: return multiply<planes, 4>(a, height, right, depth, result, width, between);
    default: return multiply<planes, 5>(a, height, right, depth, result, width, between);
  }
}

}  // namespace vit
