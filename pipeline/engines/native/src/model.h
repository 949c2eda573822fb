// What a network is made of, as Python packs it (pack.py), and the memory that its passes work in.
#pragma once
#include <cstdlib>
#include <cstring>
#include <memory>

#include "products.h"

namespace vit {

extern "C" {

// Weights as right tiles, strip by strip of 16 outputs, and a bias for each output of the strips. `scales`, of
// each output, are of weights in 8 bits, null where the tiles are of `Number`.
struct Linear {
  const void* tiles;
  const float *bias, *scales;
  int32_t inputs, outputs;  // multiples of what a tile covers and of 16
};

// `widen` and `narrow` come in `Model::chunks` parts, each of some of the hidden values.
// `taps` (9, width) of the local convolution, null where the block has none.
struct Block {
  Linear query, key, value, out;
  const Linear *widen, *narrow;
  const float *taps, *taps_bias;
};

// From canvases to images. Result x is made of `taps` pixels, a multiple of 4, from first[x] on; `weights`
// (taps / 4, 2, to_px): of taps 0 and 2 of the four, then of 1 and 3. No taps: the canvas is the image.
struct Resize {
  int32_t from_px, to_px, taps, shift;
  const int32_t* first;
  const int16_t (*weights)[2];
};

struct Model {
  Resize resize;
  int32_t size_px, patch_px, width, heads, depth, classes, planes, chunks;
  int32_t prefix;      // tokens before those of the patches: the class token, and registers
  int32_t quick_gelu;  // 1: x sigmoid(1.702 x) in place of GELU
  float epsilon;
  Linear patches, head;
  const float *position, *first;       // (patches, width), (prefix, width)
  const float *norm_gain, *norm_bias;  // (width)
  const float *pre_gain, *pre_bias;    // (width), of the norm before the first block; null where there is none
  const Block* blocks;
  float (*score)(const float* trace, const float* logits);  // of one image; null where none is asked for
};

// Rows of one image each: (classes), (width), (depth + 1, width), (1).
struct Outputs {
  float *logits, *embedding, *trace, *score;
};
}

struct Sizes {
  int side, tokens, head;
  int key_tiles, value_steps;  // of a head: tokens by 16, tokens by what a tile covers

  int key_steps() const { return head / kDepth; }

  explicit Sizes(const Model& m)
      : side(m.size_px / m.patch_px),
        tokens(side * side + m.prefix),
        head(m.width / m.heads),
        key_tiles((tokens + kLanes - 1) / kLanes),
        value_steps((tokens + kDepth - 1) / kDepth) {}
};

template <class T>
class Buffer {
 public:
  // Zeros: what is never written, behind the last row or token, must be finite.
  explicit Buffer(size_t count) : memory_(static_cast<T*>(std::aligned_alloc(64, bytes(count))), &std::free) {
    if (!memory_) throw std::bad_alloc();
    std::memset(memory_.get(), 0, bytes(count));
  }
  T* get() const { return memory_.get(); }

 private:
  static size_t bytes(size_t count) { return (count * sizeof(T) + 63) / 64 * 64; }
  std::unique_ptr<T[], decltype(&std::free)> memory_;
};

// Rows with memory of their own.
class RowBuffer {
 public:
  RowBuffer(int rows, int width, int planes)
      : memory_(size_t(rows) * width * planes), rows_{memory_.get(), size_t(width), size_t(rows) * width} {}
  const Rows& rows() const { return rows_; }

 private:
  Buffer<Number> memory_;
  Rows rows_;
};

// The activations of up to `images` images, which the threads of a pass share.
class Workspace {
 public:
  Workspace(const Model& m, int images)
      : sizes(m),
        tokens(rows(images) * m.width),
        moved(rows(images) * m.width),
        query(rows(images), m.width, m.planes),
        attended(rows(images), m.width, m.planes),
        keys_of_head(size_t(sizes.key_tiles) * sizes.key_steps() * m.planes * kTile),
        values_of_head(size_t(sizes.head / kLanes) * sizes.value_steps * m.planes * kTile),
        keys(images * m.heads * keys_of_head),
        values(images * m.heads * values_of_head) {}

  const Sizes sizes;
  const Buffer<float> tokens, moved;
  const RowBuffer query, attended;
  const size_t keys_of_head, values_of_head;
  const Buffer<Number> keys, values;

 private:
  // Tiles of equal height may end behind the last row.
  size_t rows(int images) const { return images * sizes.tokens + kLanes; }
};

}  // namespace vit
