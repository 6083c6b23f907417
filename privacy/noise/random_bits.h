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
  RandomBits(RandomBits&&) noexcept;
  RandomBits& operator=(RandomBits&&) noexcept;

  std::uint64_t next_u64();
  /// Uniform in {0, …, bound - 1} without bias (rejection). REQUIRES: bound > 0.
  std::uint64_t below(std::uint64_t bound);
  /// True with probability 1/2.
  bool coin();
  void fill(std::span<std::uint64_t> out);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fl
