#pragma once

#include <complex>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "privacy/accounting/privacy_loss.h"
#include "privacy/accounting/real_fft.h"

namespace fl {

/// The transforms of the sizes used last, because making one costs as much as using it.
class FftCache {
 public:
  RealFft& of_size(std::size_t size);

 private:
  std::list<RealFft> plans_;  ///< the last used first
};

/// Privacy losses prepared for many compositions: their moments E[e^(λ · loss)] at fixed orders λ, and the transforms
/// of their exponentially tilted forms, are computed when first asked for and kept (25 MB at most). Not thread-safe.
class LossBase {
 public:
  explicit LossBase(PrivacyLosses losses);

  const PrivacyLosses& losses() const { return losses_; }

  /// Orders are numbered: order(0) = 0, order(i) = 2^((i - 45) / 4) for i > 0, order(-i) = -order(i).
  static constexpr int kOrders = 160;
  static double order(int i);
  /// ln Σ mass · e^(order(i) · loss). REQUIRES: -kOrders <= i <= kOrders.
  double log_moment(int i);

  /// ln of the transform, modulo `size` places, of mass · e^(order · loss - log_moment). Loss k·interval lies at place
  /// k mod size.
  struct Spectrum {
    int order;
    std::size_t size;
    std::vector<double> log_absolute;
    std::vector<double> phase;
    std::vector<double> error;  ///< of e^(log_absolute + i phase), relative
  };
  /// Valid until the next call.
  const Spectrum& spectrum(int order, RealFft& fft);
  void forget_spectra() { spectra_.clear(); }

 private:
  double horner(double order) const;

  PrivacyLosses losses_;
  std::vector<std::optional<double>> log_moments_;
  std::list<Spectrum> spectra_;  ///< the last used first
};

/// `count` repetitions of one base.
struct LossPower {
  std::shared_ptr<LossBase> base;
  std::uint64_t count = 1;
};

/// The composition of all powers, evaluated where an answer needs it: the distribution is tilted (multiplied by e^(λ ·
/// loss)) so that its bulk lies where the answer is, cut to a window whose outside is bounded by moments (Chernoff),
/// transformed, multiplied up in logarithms and transformed back. Outside mass and rounding are added to δ. A tilt
/// keeps δ's relative precision at any magnitude (Koskela, Jälkö, Honkela 1906.03049 compose by FFT; the tilt is that
/// of saddle points).
class LossComposition {
 public:
  /// Most places that a window may have.
  static constexpr std::size_t kMaxWindow = std::size_t{1} << 21;

  /// REQUIRES: powers not empty, equal intervals; `ffts` outlives the object.
  LossComposition(std::vector<LossPower> powers, FftCache& ffts);

  /// The larger of `at_least` (>= 0) and an ε with δ(ε) <= delta, infinity if there is none; nothing when the window
  /// would exceed kMaxWindow.
  std::optional<double> epsilon(double delta, double at_least = 0);
  /// The larger of `at_least` (>= 0) and δ(ε), for ε >= 0; nothing when the window would exceed kMaxWindow.
  std::optional<double> delta(double epsilon, double at_least = 0);
  /// Places that the last window had or would have had.
  double places() const { return places_; }

 private:
  /// Where the answer is expected.
  struct Aim {
    double log_mass;  ///< of the δ there
    double loss;
  };
  struct Window {
    int order;  ///< of the tilt
    double low;
    double high;
    double outside;  ///< bound on the mass above
    double surplus;  ///< ln of the tilted weight of the answer over its δ
  };

  double log_moment(int order) const;
  double log_weight(int order, double loss) const;
  int order_at(double loss) const;
  int best_order(double log_delta) const;
  double chernoff_loss(int order, double log_mass) const;
  double tilted_loss(int order, int sign, double log_mass) const;
  Window window(int order, const Aim& aim) const;
  Window best_window(int order, const Aim& aim) const;
  std::optional<double> epsilon_near(double delta, Window& window, Aim aim);
  std::optional<double> delta_near(double epsilon, const Aim& aim);
  std::optional<DeltaCurve> curve(const Window& window);
  double fill(int order, RealFft& fft, std::vector<std::complex<double>>& product) const;

  std::vector<LossPower> powers_;
  FftCache& ffts_;
  double infinity_ = 0;
  double interval_ = 1;
  double lowest_ = 0;  ///< sum of the lowest losses
  double highest_ = 0;
  double places_ = 0;
};

}  // namespace fl
