#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "privacy/noise/random_bits.h"
#include "privacy/secagg/secret.h"

namespace fl {

/// Shamir's sharing over GF(p), p = 2^31 + 11. A secret is cut into limbs of 31 bits (the last 31 bits are the last
/// limb; the first has what is left), and each limb is shared by a random polynomial of degree threshold - 1; the share
/// of x holds its values at x, 4 bytes big-endian each. The same shares as federated-compute,
/// fcp/secagg/shared/shamir_secret_sharing.cc.
struct ShamirShare {
  std::uint32_t x = 0;  ///< 1 to shares: who holds it. Never 0, where the secret is.
  SecretBytes value;    ///< shamir_share_bytes(secret bytes) bytes
};

/// Bytes of a share's value: 4 for every 31 bits begun. A secret of 32 bytes has shares of 36.
constexpr std::size_t shamir_share_bytes(std::size_t secret_bytes) { return (8 * secret_bytes + 30) / 31 * 4; }

/// Shares 1 to `shares`, of which any `threshold` rebuild the secret and fewer say nothing about it. `bits` must be
/// unpredictable and is used up by 8 bytes per limb and coefficient. Cost: limbs · threshold · shares multiplications.
/// No branch or address depends on the secret. REQUIRES: 1 to 64 secret bytes, 2 <= threshold <= shares <= 1,000,000.
std::vector<ShamirShare> shamir_split(std::span<const std::byte> secret, std::uint32_t shares, std::uint32_t threshold,
                                      RandomBits& bits);

/// The secret. All shares given must lie on one polynomial: the first `threshold` rebuild the secret and every further
/// one checks them. With exactly `threshold` shares a random wrong one is found only because the limbs do not fit in
/// secret_bytes (32 bytes: all but one in 2^23), and one that was made to fit is not: compare with a public key or
/// hash.
///
/// Errors: ProtocolError for fewer than `threshold` shares, an x that is 0, above 1,000,000 or given twice, a value of
/// another size or not below p, shares that contradict one another, and a result that is no secret of that size.
/// REQUIRES: 1 to 64 secret bytes, threshold >= 2.
SecretBytes shamir_combine(std::span<const ShamirShare> shares, std::uint32_t threshold, std::size_t secret_bytes);

}  // namespace fl
