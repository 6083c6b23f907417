#pragma once

#include <algorithm>
#include <ctime>

namespace fl {

/// The best of five runs, in bytes a second of this process. `run` moves `bytes`; several of it are timed at once where they are short, because
/// the clock counts in microseconds.
template <class Run>
double best_rate(double bytes, Run run) {
  const int repeats = static_cast<int>(std::max(1.0, 4e6 / bytes));
  double best = 0;
  for (int i = 0; i < 5; ++i) {
    const std::clock_t begin = std::clock();
    for (int k = 0; k < repeats; ++k) run();
    const double seconds = static_cast<double>(std::max<std::clock_t>(std::clock() - begin, 1)) / CLOCKS_PER_SEC;
    best = std::max(best, repeats * bytes / seconds);
  }
  return best;
}

}  // namespace fl
