#include "privacy/mechanism/integer_update.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "privacy/clip/clip.h"
#include "privacy/mechanism/rotation.h"

namespace fl {
namespace {

/// Standard deviations of a coordinate of the sum that 2^bits values hold.
constexpr double kDeviations = 4;
/// An acceptance has a chance of at least 1 - β = 0.39; this many failures in a row mean a broken generator.
constexpr int kMostRoundings = 1000;
/// Integer noise is drawn in blocks.
constexpr std::size_t kBlock = 16 * 1024;
/// What DiscreteGaussian and Skellam draw.
constexpr double kLeastVariance = 0x1p-20;
constexpr double kMostVariance = 0x1p40;

__extension__ using Wide = unsigned __int128;

/// The largest integer that is at most value², exactly.
Wide square_below(double value) {
  double square = value * value;
  if (std::fma(value, value, -square) < 0) square = std::nextafter(square, 0.0);
  return static_cast<Wide>(square);
}

class DistributedDevice final : public DeviceMechanism {
 public:
  /// `draw` may be empty: no noise.
  DistributedDevice(const DistributedOptions& options, const DistributedPlan& plan, IntegerDraw draw)
      : options_(options), plan_(plan), draw_(std::move(draw)) {}

  void protect(std::span<float> delta, std::uint32_t round, const NoiseKey& key) const override {
    const ClipResult result = clip_to(delta, options_.clip_norm, delta);
    FL_CHECK(result != ClipResult::not_finite, "only a finite update is protected");
    std::vector<double> values(delta.begin(), delta.end());
    Rotation(round).apply(values);
    for (double& value : values) value *= plan_.scale;
    RandomBits bits(key);
    std::vector<std::int64_t> integers(values.size());
    round_conditionally(values, plan_.l2_bound, bits, integers);
    const std::int64_t mask = (std::int64_t{1} << options_.bits) - 1;
    std::vector<std::int64_t> noise(std::min(kBlock, integers.size()), 0);
    for (std::size_t start = 0; start < integers.size(); start += kBlock) {
      const std::size_t count = std::min(kBlock, integers.size() - start);
      if (draw_) draw_(bits, std::span(noise).first(count));
      for (std::size_t i = 0; i < count; ++i) delta[start + i] = static_cast<float>((integers[start + i] + noise[i]) & mask);
    }
  }

 private:
  DistributedOptions options_;
  DistributedPlan plan_;
  IntegerDraw draw_;
};

class DistributedServer final : public ServerMechanism {
 public:
  DistributedServer(const DistributedOptions& options, const PrivacySetting& setting, const DistributedPlan& plan, double stddev)
      : setting_(setting), plan_(plan), clip_norm_(options.clip_norm), stddev_(stddev), modulus_(std::uint64_t{1} << options.bits), sums_(setting.parameters) {}

  ExactSumError add(std::span<const float> update) override {
    FL_CHECK(update.size() == sums_.size(), "DistributedServer::add: wrong length");
    const auto modulus = static_cast<float>(modulus_);
    for (const float value : update) {
      if (!std::isfinite(value)) return ExactSumError::not_finite;
      if (!(value >= 0 && value < modulus) || value != std::floor(value)) return ExactSumError::out_of_bound;
    }
    for (std::size_t i = 0; i < update.size(); ++i) sums_[i] += static_cast<std::uint64_t>(update[i]);
    ++terms_;
    return ExactSumError::none;
  }

  void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms) override {
    FL_CHECK(sum.size() == sums_.size(), "DistributedServer::add_sum: wrong length");
    for (std::size_t i = 0; i < sum.size(); ++i) sums_[i] += static_cast<std::uint64_t>(sum[i]);
    terms_ += terms;
  }

  ReleaseFacts release(std::uint32_t round, std::span<float> mean) override {
    FL_CHECK(terms_ >= setting_.minimum_cohort, "fewer updates than their noise was made for");
    std::vector<double> values(sums_.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const auto residue = static_cast<std::int64_t>(sums_[i] & (modulus_ - 1));
      const auto modulus = static_cast<std::int64_t>(modulus_);
      values[i] = static_cast<double>(2 * residue >= modulus ? residue - modulus : residue);
    }
    Rotation(round).invert(values);
    const double divisor = plan_.scale * setting_.cohort;
    for (std::size_t i = 0; i < values.size(); ++i) mean[i] = static_cast<float>(values[i] / divisor);
    discard();
    ReleaseFacts facts;
    facts.clip_norm = clip_norm_;
    facts.noise_stddev = stddev_ / setting_.cohort;
    return facts;
  }

  void discard() override {
    std::fill(sums_.span().begin(), sums_.span().end(), 0);
    terms_ = 0;
  }

 private:
  PrivacySetting setting_;
  DistributedPlan plan_;
  double clip_norm_;
  double stddev_;
  std::uint64_t modulus_;
  AlignedArray<std::uint64_t> sums_;  ///< 2^32 updates of 24 bits do not fill 64
  std::uint64_t terms_ = 0;
};

}  // namespace

double rounded_l2_bound(double norm, std::uint64_t dimension, double beta) {
  const double root = std::sqrt(static_cast<double>(dimension));
  const double always = norm + root;
  if (beta <= 0) return always;
  const double deviation = std::sqrt(2 * std::log(1 / beta));
  return std::min(always, std::sqrt(norm * norm + root * root / 4 + deviation * (norm + root / 2)));
}

double rounded_l1_bound(double l2, std::uint64_t dimension) { return l2 * std::min(std::sqrt(static_cast<double>(dimension)), l2); }

void round_conditionally(std::span<const double> values, double l2_bound, RandomBits& bits, std::span<std::int64_t> out) {
  FL_CHECK(values.size() == out.size(), "round_conditionally: wrong length");
  const Wide most = square_below(l2_bound);
  for (int attempt = 0; attempt < kMostRoundings; ++attempt) {
    Wide squares = 0;
    std::uint64_t word = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
      word = i % 2 == 0 ? bits.next_u64() : word >> 32;
      const double below = std::floor(values[i]);
      const double up = static_cast<double>(word & 0xffffffff) * 0x1p-32 < values[i] - below ? 1 : 0;
      out[i] = static_cast<std::int64_t>(below + up);
      squares += static_cast<Wide>(out[i]) * static_cast<Wide>(out[i]);
    }
    if (squares <= most) return;
  }
  FL_CHECK(false, "no rounding met its bound");
}

void DistributedOptions::fields(Fields& f) {
  ClipOptions::fields(f);
  f.integer("bits", bits, {8, 24}, "integers modulo 2^this are sent and summed", "bits");
}

DistributedPlan::DistributedPlan(const DistributedOptions& options, const PrivacySetting& setting, double noise_multiplier) {
  const auto clients = static_cast<double>(setting.max_cohort);
  const auto dimension = static_cast<double>(std::max<std::uint64_t>(1, setting.parameters));
  const double stddev = noise_multiplier * options.clip_norm / std::sqrt(static_cast<double>(std::max<std::uint64_t>(1, setting.minimum_cohort)));
  const double of_sum = Rotation::spread(setting.parameters) * options.clip_norm * options.clip_norm * clients * clients / dimension + stddev * stddev * clients;
  const double half_width = std::ldexp(1.0, static_cast<int>(options.bits)) / (2 * kDeviations);
  const double left = half_width * half_width - clients / 4;
  if (left <= 0) return;
  scale = std::sqrt(left / of_sum);
  norm = options.clip_norm * scale;
  l2_bound = rounded_l2_bound(norm, setting.parameters, kRoundingBeta);
  l1_bound = rounded_l1_bound(l2_bound, setting.parameters);
  local_stddev = stddev * scale;
}

void DistributedMechanism::check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const {
  const DistributedPlan plan(options_, setting, noise_multiplier);
  if (plan.scale == 0) {
    bad_value(path + ".bits", options_.bits, "more: the rounding of up to " + std::to_string(setting.max_cohort) + " clients alone fills 2^bits values");
  }
  const double variance = plan.local_stddev * plan.local_stddev;
  if (noise_multiplier != 0 && !(noise_multiplier > 0 && variance >= kLeastVariance && variance <= kMostVariance)) {
    throw ConfigError(path + ": noise of variance " + nlohmann::json(variance).dump() + " in integers on each device, expected 2^-20 to 2^40; change " +
                      (variance > kMostVariance ? "bits to less" : "privacy.noise_multiplier to more, or to 0"));
  }
}

std::vector<PrivacyEvent> DistributedMechanism::events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const {
  const DistributedPlan plan(options_, setting, noise_multiplier);
  if (plan.scale == 0) check(setting, noise_multiplier, "privacy.mechanism");
  PrivacyEvent event;
  event.kind = kind_;
  event.count = setting.participations(after);
  event.noise_multiplier = noise_multiplier;
  event.l2_bound = plan.l2_bound;
  event.l1_bound = plan.l1_bound;
  event.scale = plan.scale;
  event.local_stddev = plan.local_stddev;
  event.clients = setting.minimum_cohort;
  event.dimension = setting.parameters;
  return {event};
}

std::unique_ptr<ServerMechanism> DistributedMechanism::server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys&) const {
  return std::make_unique<DistributedServer>(options_, setting, DistributedPlan(options_, setting, noise_multiplier), noise_multiplier * options_.clip_norm);
}

SumCode DistributedMechanism::sum_code(const PrivacySetting& setting, double, const std::string&) const {
  return SumCode::residues(setting.max_cohort, static_cast<unsigned>(options_.bits));
}

std::unique_ptr<DeviceMechanism> DistributedMechanism::device(const PrivacySetting& setting, double noise_multiplier) const {
  const DistributedPlan plan(options_, setting, noise_multiplier);
  return std::make_unique<DistributedDevice>(options_, plan, plan.local_stddev > 0 ? draw_of(plan.local_stddev * plan.local_stddev) : nullptr);
}

}  // namespace fl
