#pragma once

#include <cstdint>

#include "privacy/noise/wide.h"

namespace fl {

/// e^-x with a relative error below 2^-50, 0 where x > 700. Additions and multiplications alone, so the bits are the same
/// whatever the C library. REQUIRES: x >= 0.
double exponential_rough(double x);

/// e^-x · 2^62 with an absolute error below 2, for x given in units of 2^-120.
std::uint64_t exponential_precise(uint128 x);

}  // namespace fl
