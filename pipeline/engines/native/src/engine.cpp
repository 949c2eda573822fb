// What Python calls: engines, and the team of threads that runs them.
#include "pass.h"

namespace vit {

// A model with room for its passes: one image on the threads together, or pieces of a batch on one thread each.
class Engine {
 public:
  Engine(const Model& model, Team& team, int piece)
      : model_(model), team_(team), threads_(team.threads()), piece_(piece) {
    for (int thread = 0; thread < threads_; ++thread) {
      spaces_.push_back(std::make_unique<Workspace>(model, piece));
      scratches_.push_back(std::make_unique<Scratch>(model));
    }
  }

  void run(const uint8_t* canvases, int count, const Outputs& outputs) {
    const TimedPass whole(threads_);
    const int parts = std::min(threads_, Sizes(model_).tokens);  // Of one image: a token each, at least.
    Barrier barrier;
    std::atomic<int> next{0};
    team_.run([&](int thread) {
      const TimedThread own;
      if (count != 1) run_pieces(thread, next, canvases, count, outputs);
      else if (thread < parts) pass(thread, 0, canvases, 1, outputs, thread, parts, &barrier);
    });
  }

 private:
  // Pieces get smaller towards the end, so that the threads finish together.
  void run_pieces(int thread, std::atomic<int>& next, const uint8_t* canvases, int count, const Outputs& o) {
    const size_t width = model_.width, canvas = size_t(3) * model_.resize.from_px * model_.resize.from_px;
    for (int start = next.load(), size; start < count;) {
      size = std::clamp((count - start) / threads_, 1, piece_);
      if (!next.compare_exchange_weak(start, start + size)) continue;
      const Outputs rows{o.logits + start * size_t(model_.classes), o.embedding + start * width,
                         o.trace + start * (model_.depth + 1) * width, o.score + start};
      pass(thread, thread, canvases + start * canvas, size, rows, 0, 1, nullptr);
      start = next.load();
    }
  }

  void pass(int thread, int space, const uint8_t* canvases, int count, const Outputs& outputs, int part, int parts,
            Barrier* barrier) {
    const Workspace& w = *spaces_[space];
    const Scratch& s = *scratches_[thread];
    if (model_.planes == kMostPlanes)
      Pass<kMostPlanes>(model_, w, s, count, part, parts, barrier).run(canvases, outputs);
    else Pass<1>(model_, w, s, count, part, parts, barrier).run(canvases, outputs);
  }

  const Model model_;
  Team& team_;
  const int threads_, piece_;
  std::vector<std::unique_ptr<Workspace>> spaces_;
  std::vector<std::unique_ptr<Scratch>> scratches_;
};

}  // namespace vit

extern "C" {

// Asks the system for what a process has only on request; 0 where it gives it.
int vit_prepare() { return vit::prepare(); }

// A team is never deleted; null where the system gives no such threads.
vit::Team* vit_create_team(int threads) try {
  vit::Team* team = new vit::Team(threads);
  team->start();
  return team;
} catch (const std::exception&) {
  return nullptr;
}

// What the model points to must outlive the engine; null where there is no memory for it.
vit::Engine* vit_create(const vit::Model* model, vit::Team* team, int piece) try {
  return new vit::Engine(*model, *team, piece);
} catch (const std::exception&) {
  return nullptr;
}

void vit_run(vit::Engine* engine, const uint8_t* canvases, int count, const vit::Outputs* outputs) {
  engine->run(canvases, count, *outputs);
}

void vit_destroy(vit::Engine* engine) { delete engine; }

#ifdef VIT_CLOCK
// Seconds of all passes since the last call, by part.
void vit_take_clock(double* seconds) { vit::passes_clock.take(seconds); }
#endif
}
