#include "privacy/mechanism/correlated_noise.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "fl_core/base/sha256.h"

namespace fl {
namespace {

/// The blocks of a draw are the same ones whether it goes into a sum or only into the past.
constexpr std::size_t kBlock = NoisySum::kBlock;

std::array<std::byte, 8> little_endian(std::uint64_t value) {
  std::array<std::byte, 8> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(value >> (8 * i) & 0xff);
  return bytes;
}

/// Throws IoError. The state is not shown: it is a secret.
NoiseKey key_of(const nlohmann::json& state) {
  const bool good = state.is_object() && state.contains("root_key") && state.at("root_key").is_string();
  const auto bytes = from_hex(good ? state.at("root_key").get<std::string>() : "");
  NoiseKey key{};
  if (!bytes || bytes->size() != key.size()) {
    throw IoError("the checkpoint's privacy state is damaged: expected {\"root_key\": 64 hexadecimal digits}");
  }
  std::copy(bytes->begin(), bytes->end(), key.begin());
  return key;
}

}  // namespace

NoiseKey derived_key(const NoiseKey& root, std::uint64_t first, std::uint64_t second) {
  return Sha256().add("tributary correlated noise").add(root).add(little_endian(first)).add(little_endian(second)).finish();
}

void TreeNoise::add(std::uint32_t round, NoisySum& sum) {
  FL_CHECK(round >= 1, "rounds are numbered from 1");
  // The node that ends here has one level for each trailing zero of the round; it replaces those of the trailing ones of round - 1.
  const int completed = std::countr_zero(round);
  std::vector<RandomBits> nodes;
  for (int level = 0; level < completed; ++level) {
    nodes.emplace_back(derived_key(root_, static_cast<std::uint64_t>(level), (round - 1) >> level));
  }
  RandomBits node(derived_key(root_, static_cast<std::uint64_t>(completed), round >> completed));
  std::vector<std::int64_t> replaced;
  sum.add_noise([&](std::span<std::int64_t> block) {
    draw_.fill(node, block);
    replaced.resize(block.size());
    for (RandomBits& bits : nodes) {
      draw_.fill(bits, replaced);
      for (std::size_t i = 0; i < block.size(); ++i) block[i] -= replaced[i];
    }
  });
}

double TreeNoise::stddev(std::uint32_t round) const { return draw_.stddev() * std::sqrt(1.0 + std::countr_zero(round)); }

BandedNoise::BandedNoise(std::size_t size, double stddev, const SumGrid& grid, std::span<const double> coefficients)
    : size_(size), draw_(stddev, grid.exponent() - kFractionBits) {
  FL_CHECK(!coefficients.empty() && coefficients[0] == 1, "a banded factor begins with 1");
  for (const double c : coefficients) coefficients_.push_back(static_cast<std::uint64_t>(std::ldexp(c, kFractionBits)));
  FL_CHECK(std::is_sorted(coefficients_.rbegin(), coefficients_.rend()), "a banded factor does not increase");
  for (std::size_t i = 1; i < coefficients_.size(); ++i) past_.emplace_back(size);
}

void BandedNoise::restart(const NoiseKey& root) {
  root_ = root;
  made_ = 0;
  for (auto& w : past_) std::fill(w.span().begin(), w.span().end(), 0);
}

void BandedNoise::step(std::uint32_t round, std::size_t start, RandomBits& draws, std::span<std::int64_t> block) {
  draw_.fill(draws, block);
  // Modulo 2^64, which is exact: the result is far below 2^63, whatever the terms on the way.
  const std::size_t terms = std::min<std::size_t>(past_.size(), round - 1);
  for (std::size_t i = 1; i <= terms; ++i) {
    const std::uint64_t c = coefficients_[i];
    const std::int64_t* w = past(round - static_cast<std::uint32_t>(i)) + start;
    for (std::size_t j = 0; j < block.size(); ++j) {
      block[j] = static_cast<std::int64_t>(static_cast<std::uint64_t>(block[j]) - c * static_cast<std::uint64_t>(w[j]));
    }
  }
  constexpr std::int64_t kHalf = std::int64_t{1} << (kFractionBits - 1);
  for (std::int64_t& value : block) value = (value + kHalf) >> kFractionBits;
  if (!past_.empty()) std::copy(block.begin(), block.end(), past(round) + start);
}

void BandedNoise::add(std::uint32_t round, NoisySum& sum) {
  FL_CHECK(round > made_, "correlated noise is made in the order of the rounds");
  FL_CHECK(sum.size() == size_, "BandedNoise::add: wrong length");
  // Rounds that were not released here (before a restart, or abandoned) still shape the later noise.
  std::vector<std::int64_t> scratch(std::min(kBlock, size_));
  for (std::uint32_t earlier = past_.empty() ? round : made_ + 1; earlier < round; ++earlier) {
    RandomBits draws(derived_key(root_, 0, earlier));
    for (std::size_t start = 0; start < size_; start += kBlock) {
      step(earlier, start, draws, std::span(scratch).first(std::min(kBlock, size_ - start)));
    }
  }
  RandomBits draws(derived_key(root_, 0, round));
  std::size_t start = 0;
  sum.add_noise([&](std::span<std::int64_t> block) {
    step(round, start, draws, block);
    start += block.size();
  });
  made_ = round;
}

double BandedNoise::stddev(std::uint32_t round) const {
  // The first entries of C⁻¹: what a unit of z_1 does to w_1, w_2, …
  std::vector<double> response;
  double squares = 0;
  for (std::uint32_t t = 0; t < round; ++t) {
    double value = t == 0 ? 1 : 0;
    for (std::size_t i = 1; i < coefficients_.size() && i <= t; ++i) {
      value -= std::ldexp(static_cast<double>(coefficients_[i]), -kFractionBits) * response[t - i];
    }
    response.push_back(value);
    squares += value * value;
  }
  return draw_.stddev() * std::sqrt(squares);
}

CorrelatedServer::CorrelatedServer(const PrivacySetting& setting, double clip_norm, const SumGrid& grid, std::unique_ptr<CorrelatedNoise> noise,
                                   NoiseKeys& keys)
    : clip_norm_(clip_norm), cohort_(setting.cohort), sum_(setting.parameters, grid), noise_(std::move(noise)), root_(keys.key(NoisePurpose::correlated, 0, 0)) {
  if (noise_) noise_->restart(root_);
}

ExactSumError CorrelatedServer::add(std::span<const float> update) {
  return sum_.add(update, clip_norm_) == ClipResult::not_finite ? ExactSumError::not_finite : ExactSumError::none;
}

ReleaseFacts CorrelatedServer::release(std::uint32_t round, std::span<float> mean) {
  if (noise_) noise_->add(round, sum_);
  sum_.release(cohort_, mean);
  ReleaseFacts facts;
  facts.clip_norm = clip_norm_;
  facts.noise_stddev = noise_ ? noise_->stddev(round) / cohort_ : 0;
  return facts;
}

nlohmann::json CorrelatedServer::state() const { return {{"root_key", to_hex(root_)}}; }

void CorrelatedServer::set_state(const nlohmann::json& state) {
  root_ = key_of(state);
  if (noise_) noise_->restart(root_);
}

}  // namespace fl
