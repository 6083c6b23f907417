#include "privacy/accounting/real_fft.h"

#include <cmath>
#include <kissfft/kissfft.hh>
#include <limits>
#include <numbers>
#include <vector>

#include "fl_core/base/error.h"

namespace fl {

using Complex = std::complex<double>;

/// A real sequence of 2m values is transformed as m complex ones (Numerical Recipes, §12.3): even places are the real
/// parts.
struct RealFft::Tables {
  explicit Tables(std::size_t half) : forward(half, false), turns(half / 2 + 1), scratch(half) {
    // From the nearest exact angle each, so that the errors do not grow with the index.
    for (std::size_t k = 0; k < turns.size(); ++k) {
      const double angle = -std::numbers::pi * static_cast<double>(k) / static_cast<double>(half);
      turns[k] = Complex(std::cos(angle), std::sin(angle));
    }
  }

  kissfft<double> forward;
  std::vector<Complex> turns;  ///< e^(-2πik/size)
  std::vector<Complex> scratch;
};

namespace {

/// Without the checks for infinities that std::complex's operator makes.
Complex times(Complex a, Complex b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}

}  // namespace

RealFft::RealFft(std::size_t size) : size_(size) {
  FL_CHECK(size > 0 && size % 2 == 0, "a real transform of an odd size");
  tables_ = std::make_unique<Tables>(size / 2);
}

RealFft::~RealFft() = default;

std::size_t RealFft::fast_size(std::size_t least) {
  std::size_t best = 16;
  while (best < least) best *= 2;
  for (const std::size_t factor : {std::size_t{3}, std::size_t{5}}) {
    std::size_t size = factor * 8;
    while (size < least) size *= 2;
    if (size < best) best = size;
  }
  return best;
}

void RealFft::forward(std::span<const double> values, std::span<Complex> spectrum) {
  const std::size_t half = size_ / 2;
  FL_CHECK(values.size() == size_ && spectrum.size() == half + 1, "a transform of another size");
  std::vector<Complex>& packed = tables_->scratch;
  for (std::size_t j = 0; j < half; ++j) packed[j] = Complex(values[2 * j], values[2 * j + 1]);
  tables_->forward.transform(packed.data(), spectrum.data());
  const Complex first = spectrum[0];
  spectrum[0] = first.real() + first.imag();
  spectrum[half] = first.real() - first.imag();
  for (std::size_t k = 1; 2 * k <= half; ++k) {
    const Complex a = spectrum[k];
    const Complex b = std::conj(spectrum[half - k]);
    const Complex even = 0.5 * (a + b);
    const Complex difference = 0.5 * (a - b);
    const Complex odd = times(tables_->turns[k], Complex(difference.imag(), -difference.real()));
    spectrum[k] = even + odd;
    spectrum[half - k] = std::conj(even - odd);
  }
}

void RealFft::inverse(std::span<Complex> spectrum, std::span<double> values) {
  const std::size_t half = size_ / 2;
  FL_CHECK(values.size() == size_ && spectrum.size() == half + 1, "a transform of another size");
  std::vector<Complex>& packed = tables_->scratch;
  // The conjugate is packed: the forward transform of it is the conjugate of the inverse transform, times `half`.
  for (std::size_t k = 0; 2 * k <= half; ++k) {
    const Complex a = spectrum[k];
    const Complex b = std::conj(spectrum[half - k]);
    const Complex even = 0.5 * (a + b);
    const Complex odd = times(std::conj(tables_->turns[k]), 0.5 * (a - b));
    packed[k] = std::conj(even + Complex(-odd.imag(), odd.real()));
    if (k > 0) packed[half - k] = even - Complex(-odd.imag(), odd.real());
  }
  tables_->forward.transform(packed.data(), spectrum.data());
  const double scale = 1.0 / static_cast<double>(half);
  for (std::size_t j = 0; j < half; ++j) {
    values[2 * j] = scale * spectrum[j].real();
    values[2 * j + 1] = -scale * spectrum[j].imag();
  }
}

double RealFft::relative_error() const {
  // Higham, Accuracy and Stability of Numerical Algorithms, theorem 24.2: log2(size) · η / (1 - η …) with η below 8
  // units in the last place for the twiddles of KISS FFT, whose angles carry the rounding of one product.
  return 8 * std::numeric_limits<double>::epsilon() * (std::log2(static_cast<double>(size_)) + 2);
}

}  // namespace fl
