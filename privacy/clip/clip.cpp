#include "privacy/clip/clip.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

/// By how much more than 1 the exact norm can be than its value in double: every one of n / 8 additions in a lane rounds by
/// 2^-53 of the sum, which the root halves; the square, the lanes, the root and the divisions here are covered by 16 more.
double norm_slack(std::size_t size) { return (static_cast<double>(size) / 8 + 16) * 0x1p-53; }

/// Rounds towards zero, where the conversion rounds to nearest. One less in the bits is the next float nearer to zero.
float towards_zero(double value) {
  const auto nearest = static_cast<float>(value);
  const std::uint32_t too_long = std::abs(static_cast<double>(nearest)) > std::abs(value) ? 1 : 0;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(nearest) - too_long);
}

}  // namespace

ClipResult clip_to(std::span<const float> in, double clip_norm, std::span<float> out) {
  FL_CHECK(in.size() == out.size() && clip_norm >= 0, "clip_to: wrong length or a negative clip norm");
  // Squares of floats neither overflow nor vanish in double, so the norm is finite exactly when every element is.
  const double norm = std::sqrt(kernels::squared_norm(in)) * (1 + norm_slack(in.size()));
  if (!std::isfinite(norm)) return ClipResult::not_finite;
  if (norm <= clip_norm) {
    if (in.data() != out.data()) std::copy(in.begin(), in.end(), out.begin());
    return ClipResult::within;
  }
  const double factor = clip_norm / norm;
  for (std::size_t i = 0; i < in.size(); ++i) out[i] = towards_zero(static_cast<double>(in[i]) * factor);
  return ClipResult::clipped;
}

}  // namespace fl
