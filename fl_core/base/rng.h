#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace fl {

/// What a random stream is for. The numbers are part of every result: never renumber, only append.
enum class Purpose : std::uint64_t {
  model_init = 1,
  sampling = 2,
  partition = 3,
  shuffle = 4,
  dropout = 5,
  device = 6,
  synthetic_data = 7,
  codec = 8,
  holdout = 9,
  evaluation = 10,
  rotation = 11,
  secure_rounding = 12,
};

/// The one random source: a ChaCha20 key stream (RFC 8439 block function) whose key is the tuple
/// (experiment seed, purpose, round, client). Two different tuples give independent streams, and a stream depends on
/// nothing else, so threads, arrival order and transport cannot change a draw. Not thread-safe; cheap to make.
/// The algorithms below are ours, not std::*_distribution, whose output differs between libraries.
class Rng {
 public:
  Rng(std::uint64_t seed, Purpose purpose, std::uint64_t round = 0, std::uint64_t client = 0);
  /// A stream that only a holder of the key can foresee: for draws that privacy counts on.
  explicit Rng(const std::array<std::uint32_t, 8>& key) : key_(key) {}

  std::uint32_t next_u32();
  std::uint64_t next_u64();
  /// Uniform in [0, 1) with 53 bits.
  double uniform();
  /// Uniform in {0, …, bound - 1}, without bias. REQUIRES: bound > 0.
  std::uint64_t below(std::uint64_t bound);
  /// Standard normal (Box-Muller, one value a call).
  double normal();
  /// Gamma(shape, 1), Marsaglia and Tsang 2000; shape > 0.
  double gamma(double shape);
  /// Fisher-Yates.
  void shuffle(std::span<std::uint32_t> values);

 private:
  void refill();

  std::array<std::uint32_t, 8> key_;
  std::uint64_t counter_ = 0;
  std::array<std::uint32_t, 16> block_;
  std::size_t used_ = 16;
};

/// The ChaCha20 block function (RFC 8439 §2.3) with a 64-bit counter and a 64-bit nonce. Exposed for its test vector.
void chacha20_block(const std::array<std::uint32_t, 8>& key, std::uint64_t counter, std::uint64_t nonce,
                    std::array<std::uint32_t, 16>& out);

}  // namespace fl
