// Where the time of passes goes. Only a library that is compiled with VIT_CLOCK has a clock.
#pragma once

namespace vit {

// In the order of clock.py. kFinishing is what becomes of a product's sums: bias, GELU, adding, storing. kRest
// is what no other part names: resizing, gathering patches, keeping the trace.
enum Part { kProducts, kFinishing, kSoftmax, kNorms, kConvolution, kWaiting, kRest, kParts };

}  // namespace vit

#ifdef VIT_CLOCK
#include <x86intrin.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <numeric>
#include <utility>

namespace vit {

// Of all passes since it was last taken: ticks of the threads by part, and of the passes as their caller sees them.
class Clock {
 public:
  void add(const double* ticks) {
    const std::lock_guard<std::mutex> one(adding_);
    for (int part = 0; part < kParts; ++part) ticks_[part] += ticks[part];
  }
  void add_pass(double ticks, double seconds) { whole_ += ticks, seconds_ += seconds; }

  // Seconds by part, which add up to those of the passes: the mean of their threads. What a thread did not
  // work, before its part of a pass or behind it, it waited.
  void take(double* seconds) {
    ticks_[kWaiting] += whole_ - std::accumulate(ticks_, ticks_ + kParts, 0.0);
    for (int part = 0; part < kParts; ++part) seconds[part] = whole_ > 0 ? ticks_[part] / whole_ * seconds_ : 0;
    std::fill_n(ticks_, kParts, whole_ = seconds_ = 0);
  }

 private:
  std::mutex adding_;
  double ticks_[kParts] = {}, whole_ = 0, seconds_ = 0;
};
inline Clock passes_clock;

class TimedPass {
 public:
  explicit TimedPass(int threads) : threads_(threads) {}
  ~TimedPass() {
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begun_;
    passes_clock.add_pass(double(__rdtsc() - begun_ticks_) * threads_, taken.count());
  }

 private:
  const int threads_;
  const std::chrono::steady_clock::time_point begun_ = std::chrono::steady_clock::now();
  const unsigned long long begun_ticks_ = __rdtsc();
};

// One thread's part in it.
class TimedThread {
 public:
  TimedThread() : since_(__rdtsc()) { current = this; }
  ~TimedThread() {
    turn(kRest);
    passes_clock.add(ticks_);
  }
  // From now on to another part; returns the one before.
  Part turn(Part part) {
    const unsigned long long now = __rdtsc();
    ticks_[part_] += now - std::exchange(since_, now);
    return std::exchange(part_, part);
  }
  static inline thread_local TimedThread* current;

 private:
  double ticks_[kParts] = {};
  Part part_ = kRest;
  unsigned long long since_;
};

// The time of the block that it stands in belongs to a part.
class During {
 public:
  explicit During(Part part) : before_(TimedThread::current->turn(part)) {}
  ~During() { TimedThread::current->turn(before_); }

 private:
  const Part before_;
};

}  // namespace vit
#else
namespace vit {

struct TimedPass {
  explicit TimedPass(int) {}
};
struct TimedThread {
  TimedThread() {}
};
struct During {
  explicit During(Part) {}
};

}  // namespace vit
#endif
