#pragma once

#include <cstddef>

#include "fl_core/base/buffer.h"
#include "fl_core/base/rng.h"

namespace fl {

/// `size` floats uniform in [-0.05, 0.05), the magnitude of model updates; the same in every run.
inline AlignedArray<float> random_floats(std::size_t size, std::uint64_t stream = 0) {
  Rng rng(1, Purpose::synthetic_data, 0, stream);
  AlignedArray<float> values(size);
  for (float& value : values.span()) value = static_cast<float>(rng.uniform() * 0.1 - 0.05);
  return values;
}

}  // namespace fl
