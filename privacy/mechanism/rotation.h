#pragma once

#include <cstdint>
#include <span>

namespace fl {

/// x ← H x / √n for the Hadamard matrix of x's length n, a power of two (Sylvester's order). Its own inverse. n log₂ n additions.
void hadamard(std::span<double> x);

/// A public random rotation of R^N for every N, which spreads an update evenly over its coordinates, so that no sum of updates wraps
/// around (Suresh et al. 2017, 1611.00429; Kairouz, Liu, Steinke 2021, 2102.06387, section 4). Random signs and a Hadamard transform of the first 2^k
/// coordinates, then of the last 2^k, for the largest 2^k <= N: nothing is padded. All devices and the server of one round have
/// the same. A coordinate of a rotated vector has a variance (over the signs) of at most spread() · ‖x‖² / N.
class Rotation {
 public:
  explicit Rotation(std::uint32_t round) : round_(round) {}
  void apply(std::span<double> x) const;
  void invert(std::span<double> x) const;
  /// N / 2^k, in [1, 2).
  static double spread(std::uint64_t size);

 private:
  void flip_signs(std::span<double> x, std::uint64_t block) const;

  std::uint32_t round_;
};

}  // namespace fl
