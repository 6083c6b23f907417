#pragma once

#include <cstdint>
#include <span>

namespace fl {

/// What clip_to() found.
enum class ClipResult : std::uint8_t {
  within,      ///< the norm was at most the clip norm: out is in, bit for bit
  clipped,     ///< the norm was above it
  not_finite,  ///< a NaN or an infinity: out is unspecified, nothing of it may be used
};

/// out = in · min(1, clip_norm / ‖in‖₂), with one norm over everything. The norm and the products are computed in double and the
/// products rounded towards zero to float, so that the exact norm of `out` is never above clip_norm, whatever the input (zeros,
/// subnormals, values whose squares overflow a float). `out` may be `in`. Two passes over the data.
/// REQUIRES: equal lengths, clip_norm >= 0.
ClipResult clip_to(std::span<const float> in, double clip_norm, std::span<float> out);

}  // namespace fl
