#pragma once

#include <span>
#include <vector>

#include "privacy/accounting/event.h"

namespace fl {

// Rényi differential privacy (Mironov 1702.07476). All values are upper bounds: within 1e-6 relative of the exact
// divergence for the Gaussian kinds and never below it. Infinity where nothing is proven.

/// Rényi divergence at `order` of one release of the Poisson-subsampled Gaussian, the larger of both directions of
/// adding or removing a record (Mironov, Talwar, Zhang 1908.10530, theorems 4 and 5): log E[((1−q) + q
/// e^{(2z−1)/(2σ²)})^α] / (α − 1), z ~ N(0, σ²). From sums (integer orders) or quadrature of terms that are all
/// positive, of what exceeds 1: precise for a tiny q as well. REQUIRES: 0 <= sampling_rate <= 1, noise_multiplier >= 0,
/// order > 1.
double subsampled_gaussian_rdp(double sampling_rate, double noise_multiplier, double order);

/// One event of `clients` discrete Gaussians (Kairouz, Liu, Steinke 2102.06387, proposition 14): nothing is proven for
/// local noise below 1/2. REQUIRES: order > 1.
double discrete_gaussian_rdp(const PrivacyEvent& event, double order);
/// ρ of the same event under zero-concentrated privacy, sensitivities times `factor`: divergence <= ρα at every order.
double discrete_gaussian_rho(const PrivacyEvent& event, double factor);
/// How far the sum of the event's discrete Gaussians is from one: τ of 2102.06387, theorem 11. 0 for one client.
double discrete_gaussian_gap(const PrivacyEvent& event);

/// One event of `clients` Skellams (Agarwal, Kairouz, Liu 2110.04995, theorem 3.5). It is proven for integer orders; in
/// between (α − 1) times the divergence is convex in α. REQUIRES: order > 1.
double skellam_rdp(const PrivacyEvent& event, double order);

/// All `count` releases of the event. Throws ConfigError for replace_one with 0 < sampling_rate < 1, which this
/// accountant has no bound for; replace_one doubles the sensitivities otherwise.
double event_rdp(const PrivacyEvent& event, double order, Adjacency adjacency);

/// 1.1 to 10.9 by 0.1, 11 to 63, then four an octave up to 2^17 for an ε far below 1.
const std::vector<double>& rdp_orders();

/// The smallest ε over the orders (Canonne, Kamath, Steinke 2004.00010, proposition 12): r + log(1 − 1/α) − log(δα)/(α
/// − 1), and 0 where δ² > 1 − e^{−r} (Bretagnolle and Huber). Orders up to 1.01 count for the latter only. REQUIRES:
/// orders.size() == rdp.size().
double rdp_epsilon(std::span<const double> orders, std::span<const double> rdp, double delta);
/// The smallest δ over the orders by the same bounds, at most 1.
double rdp_delta(std::span<const double> orders, std::span<const double> rdp, double epsilon);

}  // namespace fl
