#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "privacy/accounting/event.h"

namespace fl {

/// A discretised privacy loss distribution of one pair (P, Q): mass[i] is the probability, under P, of the loss ln(P/Q)
/// being (first + i) · interval, and `infinity` that of outcomes which Q cannot explain. Pessimistic: its δ(ε) is
/// nowhere below the true one. Everything here makes it by "connecting the dots" (Doroshenko, Ghazi, Kamath, Kumar,
/// Manurangsi 2207.04380): δ is exact at every multiple of the interval and interpolated linearly in e^ε between them.
struct PrivacyLosses {
  double interval = 1;
  std::int64_t first = 0;
  std::vector<double> mass;
  double infinity = 0;

  std::int64_t last() const { return first + static_cast<std::int64_t>(mass.size()) - 1; }

  /// δ(ε) = infinity + Σ_{loss > ε} mass · (1 - e^(ε - loss)). Any real ε.
  double delta(double epsilon) const;
  /// The smallest ε >= 0 with δ(ε) <= delta; infinity if there is none. REQUIRES: delta >= 0.
  double epsilon(double delta) const;
  /// The distribution of running both mechanisms; exact convolution, O(n · m): for small ones.
  /// Throws ConfigError when the intervals differ.
  PrivacyLosses composed_with(const PrivacyLosses& other) const;
};

/// Losses of a mechanism with finitely many outcomes: outcome i has probability upper[i] under P and lower[i] under Q.
/// REQUIRES: equal sizes, nothing negative, sums of 1 (to rounding); interval > 0.
PrivacyLosses losses_of_outcomes(std::span<const double> upper, std::span<const double> lower, double interval);

/// Losses of one sum with Gaussian noise over a Poisson sample. The noise's standard deviation is `noise_multiplier`
/// records, and N(m) is the noise around m records.
struct GaussianLosses {
  PrivacyLosses remove;  ///< P = (1 - q) N(0) + q N(1), Q = N(0); with replace_one Q = (1 - q) N(0) + q N(-1)
  PrivacyLosses add;     ///< the same pair the other way round. Empty where it would equal `remove`: q = 1, replace_one
};

struct GaussianLossesShape {
  double q = 1;  ///< sampling rate, in (0, 1]
  double noise_multiplier = 1;
  Adjacency adjacency = Adjacency::add_or_remove_one;
  double interval = 1e-4;
  /// Standard deviations that are looked at. What lies beyond (Φ(-11.4) = 2.1e-30) goes to `infinity` at the top, and
  /// up to the lowest loss at the bottom.
  double reach = 11.4;

  /// About how many losses there are; infinity where the numbers would overflow.
  double count() const;
};

/// Costs about 0.2 µs a loss. REQUIRES: shape.count() <= 2^24.
GaussianLosses losses_of_gaussian(const GaussianLossesShape& shape);

/// Connects the dots: outcomes of probability p under P and q under Q, all with losses between `low` and `low +
/// interval`, become two masses at these ends that keep both sums. Returns the upper one; the lower one is the rest of
/// p. The errors bound the rounding of p and q; the result is as much larger.
double connect_dots(double p, double q, double low, double p_error, double q_error, double interval);

/// δ(ε) of losses on a grid, read from the masses in one pass. The masses may be tilted: the true mass of loss x is
/// masses[i] · e^(log_scale - tilt · x). For privacy_loss.cpp and pld.cpp.
class DeltaCurve {
 public:
  struct Grid {
    double interval = 1;
    std::int64_t first = 0;  ///< masses[0] belongs to the loss first · interval
    double tilt = 0;         ///< >= 0
    double log_scale = 0;
  };
  /// `elsewhere` (mass beyond the grid or infinite) is added to every δ, and `error` · e^(log_scale - tilt · ε) for the
  /// rounding of the masses.
  DeltaCurve(const Grid& grid, std::vector<double> masses, double elsewhere, double error);

  double lowest() const { return loss(0); }
  /// REQUIRES: epsilon >= lowest() or tilt = 0.
  double delta(double epsilon) const;
  /// The smallest ε >= max(0, lowest()) with δ(ε) <= delta; infinity if there is none.
  double epsilon(double delta) const;

 private:
  double loss(std::int64_t i) const { return static_cast<double>(grid_.first + i) * grid_.interval; }
  double at(std::int64_t i) const;

  Grid grid_;
  std::vector<double> values_;  ///< δ(loss(i)), less `elsewhere`, in units of e^(log_scale - tilt · loss(i))
  double bottom_mass_ = 0;      ///< of all losses, for ε below the grid
  double elsewhere_ = 0;
};

}  // namespace fl
