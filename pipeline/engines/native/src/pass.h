// A Vision Transformer's pass, with the class token's trace: the function of `FusedViT`.
#pragma once
#include "attention.h"
#include "resize.h"
#include "team.h"

namespace vit {

// A thread's own memory: a resized image, one panel's normalised rows and hidden values, and scores.
struct Scratch {
  explicit Scratch(const Model& m)
      : image(size_t(3) * m.size_px * m.size_px),
        between(size_t(m.resize.from_px) * m.resize.from_px),
        normal(kMostRows, std::max(m.width, m.patches.inputs), m.planes),
        hidden(kMostRows, m.blocks[0].widen[0].outputs, m.planes),
        scores(m) {}

  const Buffer<uint8_t> image, between;
  const RowBuffer normal, hidden;
  const Scores scores;
};

// One thread's part in a pass over some images: of one image a share of the tokens, of several all.
// Keys, values and a patch's neighbours apart, what a thread reads it has written itself.
template <int planes>
class Pass {
 public:
  Pass(const Model& model, const Workspace& space, const Scratch& scratch, int images, int thread, int threads,
       Barrier* barrier)
      : m_(model), w_(space), s_(scratch), sizes_(space.sizes), images_(images), threads_(threads),
        barrier_(barrier), begin_(images * sizes_.tokens * thread / threads),
        end_(images * sizes_.tokens * (thread + 1) / threads),
        most_(rows_of_panel(planes * sizeof(Number) * model.width)), classifies_(thread == 0),
        tokens_(space.tokens.get()), moved_(space.moved.get()) {}

  // Canvases uint8 (images, 3, from_px, from_px).
  void run(const uint8_t* canvases, const Outputs& outputs) {
    const size_t canvas = size_t(3) * m_.resize.from_px * m_.resize.from_px;
    for (int image = begin_ / sizes_.tokens; image * sizes_.tokens < end_; ++image)
      embed(canvases + image * canvas, image * sizes_.tokens);
    for (int index = 0; index < m_.depth; ++index) {
      keep_trace(index, outputs);
      run_block(m_.blocks[index], index + 1 == m_.depth);
    }
    keep_trace(m_.depth, outputs);
    classify(outputs);
    score(outputs);
    release();
  }

 private:
  // The thread's rows of the image whose class token is row `top`. Rows before the patches are computed too, of
  // no pixels, and then replaced.
  void embed(const uint8_t* canvas, int top) {
    const int first = std::max(begin_, top), end = std::min(end_, top + sizes_.tokens);
    const uint8_t* image =
        resized(canvas, std::max(first - top - m_.prefix, 0), std::max(end - top - m_.prefix, 1));
    const Rows& pixels = s_.normal.rows();
    std::memset(pixels.data, 0, planes * pixels.plane * sizeof(Number));
    each_panel(first, end - first, most_, [&](const Panel& panel) {
      const int before = panel.first - top - m_.prefix;  // The patch of a row, less the row.
      for (int row = 0; row < panel.rows; ++row)
        if (before + row >= 0) gather_pixels(image, m_, before + row, pixels.at(row));
      apply<planes>(m_.patches, {m_.patches, pixels, panel}, panel, [&](int row, int column, Lanes value) {
        const int patch = before + row;
        const float* offset = patch < 0 ? m_.first + (patch + m_.prefix) * m_.width
                                        : m_.position + size_t(patch) * m_.width;
        if (patch < 0) value = zeros();
        store(token(panel.first + row) + column, add(value, load(offset + column)));
      });
      if (m_.pre_gain) normalise_tokens(panel);
    });
  }

  void normalise_tokens(const Panel& panel) {
    const During norms(kNorms);
    for (int row = panel.first; row < panel.first + panel.rows; ++row)
      normalise(token(row), m_.width, m_.epsilon, [&](int column, Lanes value) {
        store(token(row) + column, mul_add(value, load(m_.pre_gain + column), load(m_.pre_bias + column)));
      });
  }

  // An image of which at least the patches from `first` to `end` are there.
  const uint8_t* resized(const uint8_t* canvas, int first, int end) {
    if (m_.resize.taps == 0) return canvas;
    const int begin_px = first / sizes_.side * m_.patch_px, end_px = ((end - 1) / sizes_.side + 1) * m_.patch_px;
    resize(m_.resize, canvas, begin_px, end_px, s_.between.get(), s_.image.get());
    return s_.image.get();
  }

  // The last block goes on with the class tokens alone, since nothing reads the others.
  void run_block(const Block& block, bool last) {
    meet();
    if (block.taps) look_around(block);
    each_panel(begin_, end_ - begin_, most_, [&](const Panel& panel) { project(block, panel, !last); });
    if (last && classifies_) each_panel(0, images_, most_, [&](const Panel& panel) { ask(block, panel); });
    meet();
    const int count = !last ? end_ - begin_ : classifies_ ? images_ : 0;
    const int first = last ? 0 : begin_, stride = last ? sizes_.tokens : 1;
    attend_all(first, count, last ? 1 : sizes_.tokens);
    each_panel(first, count, most_, [&](const Panel& panel) { think(block, panel, stride); });
  }

  void look_around(const Block& block) {
    const During convolution(kConvolution);
    for (int row = begin_; row < end_; ++row) {
      const int place = row % sizes_.tokens;
      float* to = moved_ + size_t(row) * m_.width;
      if (place == 0) std::memcpy(to, token(row), m_.width * sizeof(float));
      else convolve(block, token(row - place + 1), sizes_.side, place - 1, m_.width, to);
    }
    std::swap(tokens_, moved_);
  }

  void normalise_panel(const Panel& panel, int stride) {
    const During norms(kNorms);
    for (int row = 0; row < panel.rows; ++row)
      normalise(token((panel.first + row) * stride), m_.width, m_.epsilon,
                [&](int column, Lanes value) { put<planes>(s_.normal.rows(), row, column, value); });
  }

  void project(const Block& block, const Panel& panel, bool all_ask) {
    normalise_panel(panel, 1);
    const Operand<planes> normal(block.key, s_.normal.rows(), panel);
    if (all_ask) project_query(block, normal, panel);
    apply<planes>(block.key, normal, panel, [&](int row, int column, Lanes value) {
      const int image = (panel.first + row) / sizes_.tokens, place = (panel.first + row) % sizes_.tokens;
      put_key<planes>(keys(image, column / sizes_.head), sizes_.key_steps(), place, column % sizes_.head, value);
    });
    apply<planes>(block.value, normal, panel, [&](int row, int column, Lanes value) {
      const int image = (panel.first + row) / sizes_.tokens, place = (panel.first + row) % sizes_.tokens;
      put_value<planes>(values(image, column / sizes_.head), sizes_.value_steps, place, column % sizes_.head, value);
    });
  }

  void ask(const Block& block, const Panel& panel) {
    normalise_panel(panel, sizes_.tokens);
    project_query(block, {block.query, s_.normal.rows(), panel}, panel);
  }

  void project_query(const Block& block, const Operand<planes>& normal, const Panel& panel) {
    const Rows query = w_.query.rows().from(panel.first);
    apply<planes>(block.query, normal, panel, [query](int row, int column, Lanes value) {
      put<planes>(query, row, column, value);
    });
  }

  // Rows of queries, of which every image has `each`.
  void attend_all(int first, int count, int each) {
    const During softmax(kSoftmax);
    for (int row = first, end; row < first + count; row = end) {
      const int image = row / each;
      end = std::min(first + count, (image + 1) * each);
      each_panel(row, end - row, kQueries, [&](const Panel& panel) {
        for (int head = 0; head < m_.heads; ++head)
          s_.scores.attend<planes>(w_.query.rows().from(panel.first, head * sizes_.head), panel,
                                   keys(image, head), values(image, head),
                                   w_.attended.rows().from(panel.first, head * sizes_.head));
      });
    }
  }

  // What follows the attention: its output layer, and the two layers of the MLP, some hidden values at a time.
  void think(const Block& block, const Panel& panel, int stride) {
    float* const tokens = token(panel.first * stride);
    const size_t step = size_t(stride) * m_.width;
    const auto add = [=](int row, int column, Lanes value) { add_to(tokens + row * step + column, value); };
    apply<planes>(block.out, {block.out, w_.attended.rows().from(panel.first), panel}, panel, add);
    normalise_panel(panel, stride);
    const Operand<planes> normal(block.widen[0], s_.normal.rows(), panel);
    for (int chunk = 0; chunk < m_.chunks; ++chunk) {
      const Linear &wide = block.widen[chunk], &narrow = block.narrow[chunk];
      if (m_.quick_gelu) widen(wide, normal, panel, [](Lanes x) { return quick_gelu<kFine<planes>>(x); });
      else widen(wide, normal, panel, [](Lanes x) { return gelu<kFine<planes>>(x); });
      apply<planes>(narrow, {narrow, s_.hidden.rows(), panel}, panel, add);
    }
  }

  template <class Function>
  void widen(const Linear& layer, const Operand<planes>& normal, const Panel& panel, Function activate) {
    const Rows hidden = s_.hidden.rows();
    apply<planes>(layer, normal, panel, [hidden, activate](int row, int column, Lanes value) {
      put<planes>(hidden, row, column, activate(value));
    });
  }

  void keep_trace(int step, const Outputs& outputs) {
    for (int image = 0; classifies_ && image < images_; ++image)
      std::memcpy(outputs.trace + (size_t(image) * (m_.depth + 1) + step) * m_.width, token(image * sizes_.tokens),
                  m_.width * sizeof(float));
  }

  void classify(const Outputs& outputs) {
    each_panel(0, classifies_ ? images_ : 0, most_, [&](const Panel& panel) {
      for (int row = 0; row < panel.rows; ++row)
        normalise(token((panel.first + row) * sizes_.tokens), m_.width, m_.epsilon, [&](int column, Lanes value) {
          value = mul_add(value, load(m_.norm_gain + column), load(m_.norm_bias + column));
          store_unaligned(outputs.embedding + size_t(panel.first + row) * m_.width + column, value);
          put<planes>(s_.normal.rows(), row, column, value);
        });
      apply<planes>(m_.head, {m_.head, s_.normal.rows(), panel}, panel, [&](int row, int column, Lanes value) {
        float* to = outputs.logits + size_t(panel.first + row) * m_.classes + column;
        store_unaligned(to, first_lanes(m_.classes - column), value);
      });
    });
  }

  void score(const Outputs& outputs) {
    for (size_t image = 0; m_.score && classifies_ && image < size_t(images_); ++image)
      outputs.score[image] = m_.score(outputs.trace + image * (m_.depth + 1) * m_.width,
                                      outputs.logits + image * m_.classes);
  }

  float* token(int row) const { return tokens_ + size_t(row) * m_.width; }
  Number* keys(int image, int head) const { return w_.keys.get() + (image * m_.heads + head) * w_.keys_of_head; }
  Number* values(int image, int head) const {
    return w_.values.get() + (image * m_.heads + head) * w_.values_of_head;
  }
  void meet() const {
    const During waiting(kWaiting);
    if (threads_ > 1) barrier_->wait(threads_);
  }

  const Model& m_;
  const Workspace& w_;
  const Scratch& s_;
  const Sizes sizes_;
  const int images_, threads_;
  Barrier* const barrier_;
  const int begin_, end_, most_;
  const bool classifies_;
  float *tokens_, *moved_;
};

}  // namespace vit
