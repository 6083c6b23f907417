#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "privacy/noise/noise_keys.h"

namespace fl {

/// The key stream of AES-256-CTR (zero IV) as random bits, made in blocks of 16 KiB. Same key, same bits, on every machine.
/// Wipes key and buffer when it dies. Throws IoError when OpenSSL fails. One thread at a time.
class RandomBits {
 public:
  explicit RandomBits(const NoiseKey& key);
  ~RandomBits();
  /// What was moved from can only be assigned to or destroyed.
  RandomBits(RandomBits&&) noexcept;
  RandomBits& operator=(RandomBits&&) noexcept;

  /// The next 8 bytes of the key stream, little-endian.
  std::uint64_t next_u64() {
    if (next_ == end_) refill();
    return *next_++;
  }
  /// Uniform in {0, …, bound - 1} without bias (rejection). REQUIRES: bound > 0.
  std::uint64_t below(std::uint64_t bound);
  /// True with probability 1/2. Takes one word for 64 coins.
  bool coin();
  /// The same words as out.size() calls of next_u64(), faster.
  void fill(std::span<std::uint64_t> out);

 private:
  struct State;
  void refill();

  std::unique_ptr<State> state_;
  const std::uint64_t* next_;
  const std::uint64_t* end_;
  std::uint64_t coins_ = 1;  ///< unused coins below a leading one
};

}  // namespace fl
