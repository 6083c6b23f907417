#pragma once

namespace fl {

// The exact trade-off of one Gaussian mechanism (Balle and Wang 2018, 1805.06530, theorem 8): noise of standard
// deviation sigma on a function of L2 sensitivity 1. δ(ε) = Φ(1/(2σ) − εσ) − e^ε Φ(−1/(2σ) − εσ). Composed Gaussian
// mechanisms, unlike ones as well, are one with 1/σ² = Σ 1/σ_i² (Dong, Roth, Su 1905.02383, corollary 3.3). All three
// hold to 1e-8 relative as far as double reaches, and err on the safe side: never below the truth by more than 1e-12 of
// it. sigma = infinity: nothing is released; 0: everything.

/// The smallest δ for ε. REQUIRES: sigma >= 0, epsilon >= 0.
double gaussian_delta(double sigma, double epsilon);
/// The smallest ε for δ; 0 where δ(0) <= delta already. REQUIRES: sigma >= 0, 0 < delta < 1.
double gaussian_epsilon(double sigma, double delta);
/// The smallest sigma with δ(epsilon) <= delta. REQUIRES: epsilon >= 0, 0 < delta < 1.
double gaussian_sigma(double epsilon, double delta);

}  // namespace fl
