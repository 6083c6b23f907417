#pragma once

#include <algorithm>
#include <chrono>

namespace fl {

/// How long a loop that has to look for letters may sleep: an eighth of the time in which nothing happened, so that a wait is lengthened by an
/// eighth at most, and a long one costs next to nothing. MPI itself would wait by spinning, on a core that a worker needs. While all workers of
/// this rank have something to do nobody waits, and each look takes a core from one of them: then it sleeps a millisecond at least.
class Patience {
 public:
  using Clock = std::chrono::steady_clock;
  void something_happened() { since_ = Clock::now(); }
  std::chrono::microseconds sleep(bool workers_are_busy = false) const {
    const auto quiet = std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - since_);
    return std::clamp(quiet / 8, workers_are_busy ? kShortestWhileBusy : kShortest, kLongest);
  }

  static constexpr std::chrono::microseconds kShortest{5};

 private:
  static constexpr std::chrono::microseconds kShortestWhileBusy{1000};
  static constexpr std::chrono::microseconds kLongest{4000};

  Clock::time_point since_ = Clock::now();
};

/// Who was heard of when. Every rank says `alive` to its peers when it has nothing else to say; whoever is silent for long has died, or its
/// machine or the network has. Time during which this process did not run itself (a suspended job) counts against nobody.
class Watch {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kEvery{5};
  static constexpr std::chrono::seconds kSilence{60};

  /// Call it often. True when it is time to say `alive`.
  bool tick() {
    const auto now = Clock::now();
    if (now - looked_ > kEvery) asleep_ += now - looked_;
    looked_ = now;
    if (now - said_ < kEvery) return false;
    said_ = now;
    return true;
  }
  /// A point in time on the clock that stands still while this process does.
  Clock::duration now() const { return looked_.time_since_epoch() - asleep_; }

 private:
  Clock::time_point looked_ = Clock::now();
  Clock::time_point said_ = Clock::now();
  Clock::duration asleep_{0};
};

}  // namespace fl
