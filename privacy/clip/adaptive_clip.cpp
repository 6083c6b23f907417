#include "privacy/clip/adaptive_clip.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {

AdaptiveClip::AdaptiveClip(double initial, const AdaptiveClipRule& rule) : clip_norm_(initial), rule_(rule) {
  FL_CHECK(rule.lowest <= initial && initial <= rule.highest, "an adaptive clip norm begins between its bounds");
}

void AdaptiveClip::follow(double fraction_within) {
  const double excess = std::clamp(fraction_within, 0.0, 1.0) - rule_.quantile;
  set_clip_norm(rule_.geometric ? clip_norm_ * std::exp(-rule_.learning_rate * excess) : clip_norm_ - rule_.learning_rate * excess);
}

void AdaptiveClip::set_clip_norm(double clip_norm) { clip_norm_ = std::clamp(clip_norm, rule_.lowest, rule_.highest); }

double noise_multiplier_of_updates(double noise_multiplier, double count_stddev, const std::string& path) {
  if (noise_multiplier == 0) return 0;
  if (noise_multiplier >= 2 * count_stddev) {
    bad_value(path + ".adaptive.count_stddev", count_stddev,
              "more than half the noise multiplier " + nlohmann::json(noise_multiplier).dump() + ", or the count alone costs more than the promise");
  }
  const double of_count = 1 / (2 * count_stddev);
  const double of_both = 1 / noise_multiplier;
  return 1 / std::sqrt((of_both - of_count) * (of_both + of_count));
}

}  // namespace fl
