#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace fl {

/// Nearest-rank percentile of ascending values: the smallest that at least `share` (in (0, 1]) of them do not exceed.
/// NaN (0 for integers) of no values.
template <class T>
T percentile(const std::vector<T>& ascending, double share) {
  if (ascending.empty()) return std::numeric_limits<T>::quiet_NaN();
  // The small amount keeps 0.1 × 10 at rank 1 whatever its rounding.
  const double rank = std::ceil(share * static_cast<double>(ascending.size()) - 1e-9);
  return ascending[static_cast<std::size_t>(std::clamp(rank, 1.0, static_cast<double>(ascending.size()))) - 1];
}

}  // namespace fl
