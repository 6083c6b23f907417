#pragma once

#include <chrono>
#include <cstdint>
#include <functional>

namespace fl {

/// How long a client waits before it tries to connect again, so that ten thousand of them do not come back at the same instant
/// ("full jitter": uniform over the whole window).
class Backoff {
 public:
  static constexpr double kFirst_s = 0.5;
  static constexpr double kLongest_s = 60;

  /// `uniform` draws from [0, 1); the operating system's generator when empty.
  explicit Backoff(std::function<double()> uniform = {});

  /// After a failed attempt: uniform in [0, w) with w = 0.5 s, 1 s, 2 s, … 60 s.
  std::chrono::milliseconds next();
  /// The server asked for `retry_s`: uniform in [retry_s, 2 retry_s).
  std::chrono::milliseconds asked_for(std::uint32_t retry_s);
  /// Uniform in the longest window: for what will not pass soon.
  std::chrono::milliseconds longest();
  /// A connection worked.
  void reset() { window_s_ = kFirst_s; }

 private:
  std::function<double()> uniform_;
  double window_s_ = kFirst_s;
};

}  // namespace fl
