#pragma once

#include <complex>
#include <cstddef>
#include <memory>
#include <span>

namespace fl {

/// The discrete Fourier transform of real sequences of one fixed length, on top of KISS FFT. Making one costs about as
/// much as two transforms, so keep it. Transforms of one object may not run at the same time (they share scratch
/// memory).
class RealFft {
 public:
  /// REQUIRES: size even and positive. Fast for sizes without prime factors beyond 5.
  explicit RealFft(std::size_t size);
  ~RealFft();

  std::size_t size() const { return size_; }
  /// The smallest fast size >= `least`: 2^a, 3·2^a or 5·2^a, at least 16.
  static std::size_t fast_size(std::size_t least);

  /// spectrum[k] = Σ_j values[j] e^(-2πijk/size) for k = 0 … size/2. REQUIRES: size values, size/2 + 1 places.
  void forward(std::span<const double> values, std::span<std::complex<double>> spectrum);
  /// The inverse of forward(). Overwrites `spectrum` with scratch.
  void inverse(std::span<std::complex<double>> spectrum, std::span<double> values);

  /// A bound on |error|₂ / |result|₂ of either transform, for a transform of this size.
  double relative_error() const;

 private:
  struct Tables;

  std::size_t size_;
  std::unique_ptr<Tables> tables_;
};

}  // namespace fl
