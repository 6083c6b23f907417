#include "aggregator/engine/privacy_guard.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

constexpr const char* kNoise = "privacy_noise";        ///< meta: what the run began with
constexpr const char* kMaxUpdates = "max_updates";

std::string name_of(const nlohmann::json& component) { return component.at("name").get<std::string>(); }

bool trains_privately(const Experiment& experiment) { return name_of(experiment.trainer) == "dp_sgd"; }

}  // namespace

PrivacyGuard::PrivacyGuard(PrivacyGuardParts parts) : parts_(std::move(parts)), options_(*parts_.experiment.privacy) {
  const auto sampler = samplers().create(parts_.experiment.sampler, "sampler");
  Store& store = parts_.folder.store();
  std::optional<double> noise;
  PrivacySetting setting = derive_setting(*sampler);
  if (const auto known = store.meta(kNoise)) {
    const nlohmann::json begun = parse_json(*known, kNoise);
    noise = begun.at("noise_multiplier").get<double>();
    // A budget was calibrated for so many rounds. Where the noise was given, more rounds are a larger promise, and devices hear of it.
    if (options_.epsilon) setting.rounds = begun.at("rounds").get<std::uint32_t>();
    setting.sampling_rate = begun.at("sampling_rate").get<double>();
  }
  const auto last = store.last_round();
  if (const auto known = store.meta(kMaxUpdates)) {
    const std::uint64_t room = std::stoull(*known);
    // A replay has the recorded run's sum, whatever its own number of clients.
    if (last && setting.max_cohort > room) {
      throw ConfigError("the run began with room for " + *known + " updates a round, and with this many clients there could be " +
                        std::to_string(setting.max_cohort) + "; go on with the clients that it began with, or start a new run");
    }
    setting.max_cohort = room;
  }
  promise_ = std::make_unique<Promise>(options_, setting, noise);
  server_ = promise_->mechanism().server(promise_->setting(), promise_->noise_multiplier(), parts_.keys);
  check_experiment(*sampler);
  if (!noise) {
    const nlohmann::json begin = {{"noise_multiplier", promise_->noise_multiplier()},
                                  {"rounds", setting.rounds},
                                  {"sampling_rate", setting.sampling_rate}};
    store.set_meta(kMaxUpdates, std::to_string(setting.max_cohort));
    store.set_meta(kNoise, begin.dump());
  }
  if (last && last->round > 0 && parts_.folder.ledger().empty()) {
    throw ConfigError("the privacy ledger of " + parts_.folder.path().string() + " is empty, but round " + std::to_string(last->round) +
                      " was released; restore the newest copy of the whole folder, or start a new run");
  }
  for (const LedgerEntry& entry : parts_.folder.ledger()) {
    charged_round_ = entry.charge.at("round").get<std::uint32_t>();
    repeats_ = entry.charge.at("repeats").get<std::uint32_t>();
    if (entry.charge.at("noise_multiplier").get<double>() != promise_->noise_multiplier()) {
      throw ConfigError("the journal of " + parts_.folder.path().string() + " says another noise than its ledger; restore the newest copy of the whole folder");
    }
  }
  if (!parts_.folder.ledger().empty()) spent_ = promise_->epsilon_after(charged_round_, repeats_);
  // The journal knows who took part, and may know the key of the noise.
  std::error_code ignored;
  std::filesystem::permissions(parts_.folder.path(), std::filesystem::perms::owner_all, ignored);
}

PrivacySetting PrivacyGuard::derive_setting(const Sampler& sampler) const {
  const Experiment& e = parts_.experiment;
  PrivacySetting setting;
  setting.parameters = parts_.layout->size();
  setting.cohort = static_cast<double>(e.round.cohort);
  setting.minimum_cohort = static_cast<std::uint64_t>(std::max<std::int64_t>(1, e.round.minimum_updates));
  setting.rounds = static_cast<std::uint32_t>(e.rounds);
  setting.separation = sampler.separation();
  setting.bound_bits = static_cast<int>(e.round.update_bound_bits);
  if (trains_privately(e)) setting.example_steps = e.trainer.at("steps").get<std::uint64_t>();
  const auto population = static_cast<double>(parts_.population);
  double expected = static_cast<double>(e.round.selected());
  if (options_.sampling == "poisson") {
    if (!options_.sampling_rate && !parts_.all_listed) {
      bad_value("privacy.sampling_rate", nullptr, "each client's chance to take part, because anybody may be admitted and nobody knows how many clients there will be");
    }
    setting.sampling_rate = options_.sampling_rate.value_or(std::min(1.0, setting.cohort / population));
    expected = setting.sampling_rate * population;
  }
  setting.max_cohort = std::max<std::uint64_t>(1, sampler.max_cohort(parts_.population, expected));
  return setting;
}

/// Everything in the experiment that would make the promise a lie.
void PrivacyGuard::check_experiment(const Sampler& sampler) const {
  const Experiment& e = parts_.experiment;
  const Mechanism& mechanism = promise_->mechanism();
  const std::string name = name_of(options_.mechanism);
  if (e.round.weighting != "uniform") {
    bad_value("round.weighting", e.round.weighting, "\"uniform\" under privacy: how many examples a client has has no bound, and is a secret itself");
  }
  if (e.evaluation.per_client_every != 0) {
    bad_value("evaluation.per_client_every", e.evaluation.per_client_every, "0 under privacy: measurements on clients' own examples would leave the device without noise");
  }
  if (mechanism.protects_examples() != trains_privately(e)) {
    bad_value("trainer.name", name_of(e.trainer), mechanism.protects_examples() ? "\"dp_sgd\", the trainer of privacy.mechanism dp_sgd"
                                                                               : "another trainer: dp_sgd belongs to privacy.mechanism dp_sgd");
  }
  if (mechanism.protects_examples()) {
    for (const Slot& slot : parts_.layout->slots()) {
      if (slot.kind != SlotKind::statistic) continue;
      bad_value("model", slot.name, "no running statistics under example-level privacy: BatchNorm mixes the examples of a batch; use group_norm");
    }
  }
  if (options_.sampling == "poisson" && name_of(e.sampler) != "poisson") {
    bad_value("sampler.name", name_of(e.sampler), "\"poisson\", because privacy.sampling says so; a cohort of fixed size is not covered by that accounting");
  }
  if (mechanism.releases_always() && e.round.minimum_updates > 1) {
    bad_value("round.minimum_updates", e.round.minimum_updates, "1 under " + name + ": a round is released however few answered, since giving it up would tell how many did");
  }
  if (server_) check_fixed_cohort(sampler);
}

/// Rules of a noisy sum over a cohort.
void PrivacyGuard::check_fixed_cohort(const Sampler& sampler) const {
  const Experiment& e = parts_.experiment;
  if (e.round.over_selection != 1) {
    bad_value("round.over_selection", e.round.over_selection, "1 under " + name_of(options_.mechanism) + ": who is quick enough to count depends on the others");
  }
  const bool integers = promise_->mechanism().device(promise_->setting(), promise_->noise_multiplier()) != nullptr;
  if (integers && name_of(e.codec) != "identity") {
    bad_value("codec.name", name_of(e.codec), "\"identity\" under " + name_of(options_.mechanism) + ", whose updates are integers");
  }
  // Numbers of clients that anybody may add could all fall into one group.
  const double groups = parts_.all_listed ? sampler.separation() : 1;
  const bool asks_everybody = static_cast<double>(e.round.cohort) * groups >= static_cast<double>(parts_.population);
  if (options_.sampling != "poisson" && !asks_everybody && options_.adjacency == "add_or_remove_one") {
    bad_value("privacy.adjacency", options_.adjacency,
              "\"replace_one\" with a cohort of fixed size: one client more would displace another, and two updates would change; or count on the poisson sampler (privacy.sampling)");
  }
}

void PrivacyGuard::charge(std::uint32_t round) {
  const bool again = round == charged_round_;
  if (again && !promise_->mechanism().on_device()) return;
  const std::uint32_t repeats = repeats_ + (again ? 1 : 0);
  // Never less than before, whatever the last digits of an accountant are.
  const double epsilon = std::max(spent_, promise_->epsilon_after(round, repeats));
  const auto budget = promise_->budget();
  if (budget && epsilon > *budget) {
    throw BudgetExhausted("round " + std::to_string(round) + " would bring the privacy spent to " + promise_->sentence(epsilon) + ", above privacy.epsilon " +
                          nlohmann::json(*budget).dump() + "; the model of round " + std::to_string(round - 1) + " is kept");
  }
  nlohmann::json charge = promise_->statement(epsilon);
  charge["round"] = round;
  charge["repeats"] = repeats;
  parts_.folder.charge(std::move(charge));
  charged_round_ = round;
  repeats_ = repeats;
  spent_ = epsilon;
}

double PrivacyGuard::expected_cohort(std::uint64_t present, std::uint64_t wanted) const {
  const double rate = promise_->setting().sampling_rate;
  return rate < 1 ? rate * static_cast<double>(present) : static_cast<double>(wanted);
}

Rng PrivacyGuard::sampling(std::uint32_t round) const {
  if (!parts_.keys.is_secure()) return {static_cast<std::uint64_t>(parts_.experiment.seed), Purpose::sampling, round};
  const NoiseKey key = parts_.keys.key(NoisePurpose::sampling, round, 0);
  std::array<std::uint32_t, 8> words{};
  static_assert(sizeof words == sizeof key);
  std::memcpy(words.data(), key.data(), sizeof words);
  return Rng(words);
}

bool PrivacyGuard::releases(std::uint64_t accepted) const {
  return promise_->mechanism().releases_always() || accepted >= promise_->setting().minimum_cohort;
}

void PrivacyGuard::describe(RoundReport& report, const ReleaseFacts& facts, double norm) const {
  PrivacyReport privacy;
  privacy.epsilon = spent_;
  if (const auto budget = promise_->budget()) privacy.epsilon_left = std::max(0.0, *budget - spent_);
  privacy.delta = promise_->delta();
  privacy.clip_norm = facts.clip_norm;
  privacy.clipped_fraction = facts.clipped_fraction;
  privacy.noise_stddev = facts.noise_stddev;
  if (facts.noise_stddev > 0) {
    // E‖signal + noise‖² = ‖signal‖² + N σ².
    const double noise = facts.noise_stddev * std::sqrt(static_cast<double>(parts_.layout->size()));
    privacy.signal_to_noise = std::sqrt(std::max(0.0, norm * norm - noise * noise)) / noise;
  }
  privacy.is_private = promise_->is_private();
  privacy.cohort_is_secret = server_ != nullptr;
  report.privacy = privacy;
  // Honest devices do not say, and what others say is not kept.
  report.examples = 0;
  report.steps = 0;
  report.training_loss = std::numeric_limits<double>::quiet_NaN();
}

std::string PrivacyGuard::state() const {
  if (!server_) return "";
  const nlohmann::json state = server_->state();
  return state.is_null() ? "" : state.dump();
}

void PrivacyGuard::restore(const std::string& state) {
  if (server_ && !state.empty()) server_->set_state(parse_json(state, "privacy_state"));
}

nlohmann::json PrivacyGuard::statement() const {
  nlohmann::json statement = promise_->statement(spent_);
  statement["sentence"] = privacy_sentence(statement);
  if (const auto budget = promise_->budget()) statement["epsilon_left"] = std::max(0.0, *budget - spent_);
  return statement;
}

}  // namespace fl
