#pragma once

#include <string>

namespace fl {

/// How an adaptive clip norm follows the updates.
struct AdaptiveClipRule {
  double quantile = 0.5;       ///< γ: the fraction of updates that shall not be clipped
  double learning_rate = 0.2;  ///< η
  bool geometric = true;       ///< C ← C·exp(-η (b̃ - γ)); otherwise C ← C - η (b̃ - γ)
  double lowest = 0;           ///< C stays between these
  double highest = 1e300;
};

/// A clip norm that finds a quantile of the updates' norms (Andrew, Thakkar, McMahan, Ramaswamy 2019, 1905.03871, algorithm 1).
/// A round's updates are cut, and its noise is drawn, with clip_norm(); follow() makes the next round's.
class AdaptiveClip {
 public:
  /// REQUIRES: lowest <= initial <= highest.
  AdaptiveClip(double initial, const AdaptiveClipRule& rule);
  double clip_norm() const { return clip_norm_; }
  /// `fraction_within`: the noisy fraction b̃ of updates that were NOT clipped; taken to [0, 1].
  void follow(double fraction_within);
  /// After a restart; taken to the rule's bounds.
  void set_clip_norm(double clip_norm);

 private:
  double clip_norm_;
  AdaptiveClipRule rule_;
};

/// Noise multiplier of the updates, z_Δ = (z⁻² - (2 σ_b)⁻²)^(-1/2), so that the sum together with the count of unclipped updates
/// costs what one sum with multiplier z does: the count is a sum of bits ± 1/2 with noise of standard deviation `count_stddev`
/// (1905.03871, theorem 1). 0 for z = 0. Throws ConfigError "<path>…" where z >= 2 σ_b.
double noise_multiplier_of_updates(double noise_multiplier, double count_stddev, const std::string& path);

}  // namespace fl
