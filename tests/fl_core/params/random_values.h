#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "fl_core/base/rng.h"

namespace fl::test {

/// Finite floats of either sign whose exponent is uniform over every one below 2^`exponent_limit`, zero and subnormals
/// included.
inline std::vector<float> random_values(std::size_t count, int exponent_limit, std::uint64_t stream) {
  Rng rng(1, Purpose::synthetic_data, 0, stream);
  std::vector<float> values(count);
  for (float& value : values) {
    const auto exponent = static_cast<std::uint32_t>(rng.below(static_cast<std::uint64_t>(127 + exponent_limit)));
    value = std::bit_cast<float>((rng.next_u32() & 0x807fffffU) | exponent << 23);
  }
  return values;
}

}  // namespace fl::test
