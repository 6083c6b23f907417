#include "privacy/mechanism/promise.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

/// Rounds beyond this are not searched for: nobody runs them.
constexpr std::uint32_t kMostRounds = 10'000'000;

/// Four digits, rounded up: a printed ε is a bound as well.
std::string rounded_up(double value) {
  if (!std::isfinite(value)) return "infinite";
  if (value == 0) return "0";
  const double unit = std::pow(10, std::floor(std::log10(value)) - 3);
  nlohmann::json number = std::ceil(value / unit - 1e-9) * unit;
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", number.get<double>());
  return text;
}

}  // namespace

Promise::Promise(const PrivacyOptions& options, const PrivacySetting& setting, std::optional<double> noise_multiplier)
    : options_(options),
      setting_(setting),
      delta_(options.delta.value()),
      mechanism_(mechanisms().create(options.mechanism, "privacy.mechanism")),
      accountant_(accountants().create(options.accountant, "privacy.accountant")) {
  setting_.adjacency = adjacency_of(options.adjacency);
  const std::string name = options.mechanism.at("name");
  const char* unit = mechanism_->protects_examples() ? "example" : "client";
  if (options.unit != unit) bad_value("privacy.unit", options.unit, std::string("\"") + unit + "\": that is what the mechanism " + name + " protects");
  if (options.sampling == "poisson" && !mechanism_->amplified_by_sampling()) {
    bad_value("privacy.sampling", options.sampling, "\"none\": the promise of " + name + " does not count on who is sampled");
  }
  if (!mechanism_->hides_presence() && setting_.adjacency != Adjacency::replace_one) {
    bad_value("privacy.adjacency", options.adjacency, "\"replace_one\" with " + name + ": every device brings its own noise, so it is seen who answered");
  }
  if (options.sampling == "none") setting_.sampling_rate = 1;
  if (noise_multiplier) {
    noise_multiplier_ = *noise_multiplier;
  } else if (options.noise_multiplier) {
    noise_multiplier_ = *options.noise_multiplier;
  } else {
    noise_multiplier_ = calibrate(*accountant_, [this](double z) { return events(z, setting_.rounds, 0); }, *options.epsilon, delta_, setting_.adjacency);
  }
  mechanism_->check(setting_, noise_multiplier_, "privacy.mechanism");
  // A combination that the accountant cannot judge is an error now and not after a day's training.
  epsilon_after(1);
}

std::vector<PrivacyEvent> Promise::events(double noise_multiplier, std::uint32_t rounds, std::uint32_t repeats) const {
  if (rounds == 0) return {};
  std::vector<PrivacyEvent> events = mechanism_->events(setting_, noise_multiplier, rounds);
  if (repeats > 0) {
    for (PrivacyEvent& event : mechanism_->events(setting_, noise_multiplier, 1)) {
      event.count *= repeats;
      events.push_back(event);
    }
  }
  return events;
}

double Promise::epsilon_after(std::uint32_t rounds, std::uint32_t repeats) const {
  if (rounds == 0) return 0;
  if (noise_multiplier_ == 0) return std::numeric_limits<double>::infinity();
  return accountant_->epsilon(events(noise_multiplier_, rounds, repeats), delta_, setting_.adjacency);
}

std::optional<std::uint32_t> Promise::rounds_that_fit() const {
  if (!options_.epsilon) return std::nullopt;
  const auto fits = [&](std::uint32_t rounds) { return epsilon_after(rounds) <= *options_.epsilon; };
  std::uint32_t low = 0;
  std::uint32_t high = std::max<std::uint32_t>(1, setting_.rounds);
  while (high < kMostRounds && fits(high)) {
    low = high;
    high = std::min(kMostRounds, high + std::max<std::uint32_t>(1, high / 16));
  }
  while (high - low > 1) {
    const std::uint32_t middle = low + (high - low) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

nlohmann::json Promise::statement(double epsilon) const {
  nlohmann::json statement = {{"epsilon", std::isfinite(epsilon) ? nlohmann::json(epsilon) : nlohmann::json(nullptr)},
                              {"delta", delta_},
                              {"unit", options_.unit},
                              {"adjacency", options_.adjacency},
                              {"sampling", options_.sampling},
                              {"sampling_rate", setting_.sampling_rate},
                              {"accountant", options_.accountant.at("name")},
                              {"mechanism", options_.mechanism.at("name")},
                              {"noise_multiplier", noise_multiplier_},
                              {"private", is_private()}};
  if (options_.epsilon) statement["budget_epsilon"] = *options_.epsilon;
  if (options_.randomness == "seeded") statement["why_not_private"] = "the noise follows from the experiment's seed (privacy.randomness is \"seeded\")";
  if (noise_multiplier_ == 0) statement["why_not_private"] = "there is no noise (privacy.noise_multiplier is 0)";
  return statement;
}

std::string Promise::sentence(double epsilon) const { return privacy_sentence(statement(epsilon)); }

std::string privacy_sentence(const nlohmann::json& statement) {
  const auto& epsilon = statement.at("epsilon");
  const double rate = statement.at("sampling_rate");
  std::string text = statement.at("private").get<bool>() ? "" : "NOT PRIVATE: " + statement.at("why_not_private").get<std::string>() + "; would be ";
  text += "epsilon " + rounded_up(epsilon.is_null() ? std::numeric_limits<double>::infinity() : epsilon.get<double>());
  text += " at delta " + rounded_up(statement.at("delta")) + " for one " + statement.at("unit").get<std::string>() + " (";
  text += statement.at("adjacency").get<std::string>() + ", ";
  text += rate < 1 ? statement.at("sampling").get<std::string>() + " sampling " + rounded_up(rate) : "no amplification by sampling";
  return text + ", accountant " + statement.at("accountant").get<std::string>() + ", mechanism " + statement.at("mechanism").get<std::string>() + ")";
}

PrivacyPlan Promise::plan() const {
  PrivacyPlan plan;
  plan.section = options_;
  plan.noise_multiplier = noise_multiplier_;
  plan.cohort = setting_.cohort;
  plan.max_cohort = static_cast<std::int64_t>(setting_.max_cohort);
  plan.minimum_cohort = static_cast<std::int64_t>(setting_.minimum_cohort);
  plan.sampling_rate = setting_.sampling_rate;
  plan.rounds = setting_.rounds;
  plan.separation = setting_.separation;
  plan.example_steps = static_cast<std::int64_t>(setting_.example_steps);
  plan.bound_bits = setting_.bound_bits;
  return plan;
}

Promise promise_of(const PrivacyPlan& plan, std::uint64_t parameters) {
  plan.section.check();
  PrivacySetting setting;
  setting.parameters = parameters;
  setting.cohort = plan.cohort;
  setting.max_cohort = static_cast<std::uint64_t>(plan.max_cohort);
  setting.minimum_cohort = static_cast<std::uint64_t>(plan.minimum_cohort);
  setting.sampling_rate = plan.sampling_rate;
  setting.rounds = static_cast<std::uint32_t>(plan.rounds);
  setting.separation = static_cast<std::uint32_t>(plan.separation);
  setting.example_steps = static_cast<std::uint64_t>(plan.example_steps);
  setting.bound_bits = static_cast<int>(plan.bound_bits);
  return Promise(plan.section, setting, plan.noise_multiplier);
}

}  // namespace fl
