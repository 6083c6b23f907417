#pragma once

#include <cstdint>
#include <span>

#include "privacy/secagg/secret.h"

namespace fl {

/// Masks. The stream of AES-256-CTR under a key, counter from 0 (NIST SP 800-38A section 6.5), is read as one number per
/// value, ⌈bits/8⌉ bytes little-endian each, and added or subtracted mod 2^bits. Values may be anything on entry (a two's
/// complement number is its residue); on return they are in [0, 2^bits). Equal keys, equal masks, on every machine. A key
/// masks one vector, once: whoever sees two vectors under one key learns their difference (AgreementContext::vector).
///
/// REQUIRES: 1 <= bits <= 64 (at most 32 for 32-bit values). IoError when OpenSSL fails; the values are then to be
/// thrown away. Any thread.
void add_mask(const SecretKey& key, std::span<std::uint64_t> values, unsigned bits);
void add_mask(const SecretKey& key, std::span<std::uint32_t> values, unsigned bits);
void subtract_mask(const SecretKey& key, std::span<std::uint64_t> values, unsigned bits);
void subtract_mask(const SecretKey& key, std::span<std::uint32_t> values, unsigned bits);

/// Bytes of a mask's stream for each value.
constexpr unsigned mask_bytes(unsigned bits) { return (bits + 7) / 8; }

struct SignedMask {
  const SecretKey* key = nullptr;  ///< outlives the call
  bool subtract = false;
};

/// The same as one call per mask, in any order, but block by block so that values stay in the cache: about as fast as
/// the bare stream. `first` is where the values begin in the vector (a multiple of 16): threads can share a vector by
/// ranges. Takes some 100 kB beside the values, whatever the number of masks.
void apply_masks(std::span<const SignedMask> masks, std::span<std::uint64_t> values, unsigned bits,
                 std::uint64_t first = 0);
void apply_masks(std::span<const SignedMask> masks, std::span<std::uint32_t> values, unsigned bits,
                 std::uint64_t first = 0);

}  // namespace fl
