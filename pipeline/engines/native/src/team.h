// Threads that stay, and wait for each other by looking: a pass changes hands a hundred times a millisecond.
#pragma once
#include <immintrin.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <mutex>
#include <thread>

namespace vit {

// Looks for `done` until it is, and lets others have the core when that takes long.
template <class Done>
inline void await(Done done) {
  for (int looks = 0; !done(); ++looks) {
    if (looks < 4096) _mm_pause();
    else std::this_thread::yield();
  }
}

class Barrier {
 public:
  void wait(int threads) {
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
    } else {
      await([&] { return round_.load(std::memory_order_acquire) != round; });
    }
  }

 private:
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
};

class Team {
 public:
  using Work = std::function<void(int thread)>;

  explicit Team(int threads) : threads_(threads) {}

  // Threads that live as long as the process; throws std::system_error where the system gives none.
  void start() {
    for (int thread = 1; thread < threads_; ++thread) std::thread([this, thread] { serve(thread); }).detach();
  }

  int threads() const { return threads_; }

  // Every thread does `work`, the caller's as number 0; returns when all have. Virtual, so that it is always
  // the code of the library whose threads these are: what one library's wait knows, another's notify may not.
  virtual void run(const Work& work) {
    const std::lock_guard<std::mutex> one(running_);
    work_ = &work;
    pending_.store(threads_ - 1, std::memory_order_relaxed);
    call_.fetch_add(1, std::memory_order_release);
    call_.notify_all();
    work(0);
    await([&] { return pending_.load(std::memory_order_acquire) == 0; });
  }

 private:
  [[noreturn]] void serve(int thread) {
    unsigned known = 0;
    while (true) {
      if (!look_for_call(known)) call_.wait(known, std::memory_order_acquire);
      ++known;
      (*work_)(thread);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  // The next call follows soon where images come one by one, and waking takes longer than looking.
  bool look_for_call(unsigned known) const {
    const auto until = std::chrono::steady_clock::now() + std::chrono::microseconds(300);
    while (call_.load(std::memory_order_acquire) == known) {
      for (int pause = 0; pause < 16; ++pause) _mm_pause();
      if (std::chrono::steady_clock::now() > until) return false;
    }
    return true;
  }

  const int threads_;
  std::mutex running_;
  const Work* work_ = nullptr;
  alignas(64) std::atomic<unsigned> call_{0};
  alignas(64) std::atomic<int> pending_{0};
};

}  // namespace vit
