#pragma once

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <functional>

/// Wall time, and CPU time of all threads of this process, in seconds; worse than any until something was measured.
struct Seconds {
  double wall = 1e300;
  double cpu = 1e300;

  void keep_best(const Seconds& other) {
    wall = std::min(wall, other.wall);
    cpu = std::min(cpu, other.cpu);
  }
};

inline double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

inline Seconds measure(const std::function<void()>& action) {
  const double cpu = cpu_seconds();
  const auto start = std::chrono::steady_clock::now();
  action();
  return {std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), cpu_seconds() - cpu};
}
