#pragma once

#include <cstdint>

#include "privacy/noise/random_bits.h"
#include "privacy/noise/wide.h"

namespace fl {

/// Whether U · divisor < numerator / denominator, exactly, for a uniform U in [0, 1) whose first 64 bits are `first`; the rest
/// is drawn as far as needed, which is hardly ever. REQUIRES: numerator <= denominator < 2^126, 0 < denominator,
/// 0 < divisor < 2^32.
bool is_below_quotient(RandomBits& bits, std::uint64_t first, uint128 numerator, uint128 denominator, std::uint64_t divisor);

/// True with probability exp(-numerator / denominator): Canonne, Kamath, Steinke 2004.00010, algorithm 1. Exact but for the
/// whole part of the quotient, where e^-1 is taken to 128 bits. REQUIRES: 0 < denominator < 2^126.
bool bernoulli_exp(RandomBits& bits, uint128 numerator, uint128 denominator);

/// True with probability 1/e, to 128 bits.
bool bernoulli_inverse_e(RandomBits& bits);

}  // namespace fl
