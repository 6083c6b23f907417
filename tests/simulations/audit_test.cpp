#include "simulations/audit.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>

#include "aggregator/store/journal.h"
#include "privacy/mechanism/mechanism.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::HasSubstr;

struct LyingOptions {
  json of = {{"name", "central_gaussian"}};
  double clip_norm = 1;
  double divisor = 4;

  void fields(Fields& f) {
    f.component("of", of, "mechanism", "what it is in truth");
    f.number("clip_norm", clip_norm, {0, 1e6}, "of that mechanism");
    f.number("divisor", divisor, {1, 1e6}, "the noise is less by this factor");
  }
};

/// A broken build: less noise than it claims.
class Lying final : public Mechanism {
 public:
  explicit Lying(const LyingOptions& options) : true_(mechanisms().create(options.of, "of")), divisor_(options.divisor) {}
  bool on_device() const override { return true_->on_device(); }
  bool hides_presence() const override { return true_->hides_presence(); }
  bool releases_always() const override { return true_->releases_always(); }
  bool amplified_by_sampling() const override { return true_->amplified_by_sampling(); }
  std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const override {
    return true_->events(setting, noise_multiplier, after);
  }
  std::unique_ptr<ServerMechanism> server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys& keys) const override {
    return true_->server(setting, noise_multiplier / divisor_, keys);
  }
  std::unique_ptr<DeviceMechanism> device(const PrivacySetting& setting, double noise_multiplier) const override {
    return true_->device(setting, noise_multiplier / divisor_);
  }

 private:
  std::unique_ptr<Mechanism> true_;
  double divisor_;
};

FL_REGISTER(mechanisms(), "lying", Lying, LyingOptions, "less noise than it claims, for tests");

/// All of the 20 clients take part in two rounds.
json central_experiment() {
  json document = test::toy_experiment();
  document["rounds"] = 2;
  document["round"] = {{"cohort", 20}, {"weighting", "uniform"}};
  document["privacy"] = {{"mechanism", {{"name", "central_gaussian"}, {"clip_norm", 0.5}}}, {"noise_multiplier", 2.0}, {"delta", 0.01}};
  return document;
}

/// Each client in each round with a chance of 1/2.
json sampled_experiment() {
  json document = central_experiment();
  document["sampler"] = {{"name", "poisson"}};
  document["round"]["cohort"] = 10;
  document["privacy"]["sampling"] = "poisson";
  document["privacy"]["noise_multiplier"] = 1.4;
  return document;
}

json lying(json document, double divisor) {
  json& mechanism = document["privacy"]["mechanism"];
  mechanism = {{"name", "lying"}, {"of", mechanism}, {"clip_norm", mechanism.at("clip_norm")}, {"divisor", divisor}};
  return document;
}

AuditResult audit_of(const json& document, std::size_t trials, std::uint64_t seed = 1) {
  const Prepared prepared = prepare(parse_experiment(document, "test"));
  AuditOptions options;
  options.trials = trials;
  options.workers = 2;
  options.seed = seed;
  return audit(prepared, options);
}

// Two rounds of noise 2 tell a client from none as one Gaussian of μ = √2 / 2 = 0.707 does: ε = 1.459 at δ = 0.01 (Balle, Wang 2018). With a quarter
// of the noise μ is 2.83 and ε 9.9. The power was found by simulating this attack on Gaussians: of 20 000 audits of 400 trials with a quarter of the
// noise none gave less than 1.9, so the chance to see no more than 1.459 is far below 1/10 000; their mean was 2.9.
TEST(Audit, DoesNotRefuteTheCentralMechanism) {
  const AuditResult result = audit_of(central_experiment(), 400);
  EXPECT_NEAR(result.claimed, 1.4585, 0.001);
  EXPECT_LE(result.bound.epsilon, result.claimed);
  EXPECT_TRUE(result.holds());
  EXPECT_EQ(result.bound.evaluated, 200U);
  EXPECT_EQ(result.claim.at("unit"), "client");
  EXPECT_EQ(result.claim.at("rounds"), 2);
}

TEST(Audit, RefutesAQuarterOfTheNoise) {
  const AuditResult result = audit_of(lying(central_experiment(), 4), 400);
  EXPECT_NEAR(result.claimed, 1.4585, 0.001) << "the lie";
  EXPECT_GT(result.bound.epsilon, result.claimed);
  EXPECT_FALSE(result.holds());
}

// With a chance of 1/2 to take part, a client stays out of both rounds in 1/4 of the runs; with noise of 0.35 it is seen almost surely in the others.
// ε is 1.214 for noise of 1.4, and would be 2.35 without sampling. 20 000 simulated audits of 400 trials with a quarter of the noise
// gave bounds of 1.52 and more.
TEST(Audit, CountsOnSampling) {
  const AuditResult honest = audit_of(sampled_experiment(), 400);
  EXPECT_NEAR(honest.claimed, 1.2136, 0.001);
  EXPECT_LE(honest.bound.epsilon, honest.claimed);
  EXPECT_EQ(honest.claim.at("sampling_rate"), 0.5);
  const AuditResult broken = audit_of(lying(sampled_experiment(), 4), 400);
  EXPECT_EQ(broken.claimed, honest.claimed);
  EXPECT_GT(broken.bound.epsilon, broken.claimed);
}

struct Variant {
  const char* name;
  json changes;
};

void PrintTo(const Variant& variant, std::ostream* out) { *out << variant.name; }

std::vector<Variant> variants() {
  const json cyclic = {{"name", "cyclic"}, {"separation", 2}};
  const json half = {{"cohort", 10}, {"weighting", "uniform"}};
  const auto mechanism = [](const char* name) { return json{{"mechanism", {{"name", name}}}, {"noise_multiplier", 4}}; };
  const auto on_devices = [&](const char* name) {
    json privacy = mechanism(name);
    privacy["noise_multiplier"] = 8;
    privacy["adjacency"] = "replace_one";
    return privacy;
  };
  const auto distributed = [&](const char* name) {
    json changes = {{"round", {{"minimum_updates", 5}}}, {"privacy", on_devices(name)}};
    changes["privacy"]["accountant"] = {{"name", "rdp"}};
    return changes;
  };
  return {{"central_replaced", {{"privacy", {{"adjacency", "replace_one"}, {"noise_multiplier", 5}}}}},
          {"central_adaptive", {{"privacy", {{"mechanism", {{"adaptive", {{"quantile", 0.5}, {"count_stddev", 10}}}}}}}}},
          {"tree", {{"rounds", 4}, {"sampler", cyclic}, {"round", half}, {"privacy", mechanism("dp_ftrl_tree")}}},
          {"banded", {{"rounds", 4}, {"sampler", cyclic}, {"round", half}, {"privacy", mechanism("dp_ftrl_banded")}}},
          {"local", {{"privacy", on_devices("local_gaussian")}}},
          {"distributed_gaussian", distributed("distributed_discrete_gaussian")},
          {"distributed_skellam", distributed("distributed_skellam")}};
}

class AuditOf : public testing::TestWithParam<Variant> {};

INSTANTIATE_TEST_SUITE_P(Mechanisms, AuditOf, testing::ValuesIn(variants()), [](const auto& variant) { return std::string(variant.param.name); });

// With a hundredth of the noise the two kinds of runs are 30 standard deviations and more apart: the test never errs, and shows all that 30 counted
// trials of each kind can: a rate of at most 1 - 0.025^(1/30) = 0.1157, ln((0.99 - 0.1157) / 0.1157) = 2.02.
TEST_P(AuditOf, HoldsWithTheNoiseAndNotWithout) {
  json document = central_experiment();
  document.merge_patch(GetParam().changes);
  const AuditResult honest = audit_of(document, 60);
  EXPECT_LE(honest.bound.epsilon, honest.claimed);
  const AuditResult broken = audit_of(lying(document, 100), 60);
  EXPECT_EQ(broken.claimed, honest.claimed);
  EXPECT_LT(broken.claimed, 2);
  EXPECT_EQ(broken.bound.false_positives + broken.bound.false_negatives, 0U);
  EXPECT_EQ(broken.bound.epsilon, broken.most);
  EXPECT_FALSE(broken.holds());
}

TEST(Audit, GivesTheSameResultForTheSameSeedAndAnyNumberOfWorkers) {
  const Prepared prepared = prepare(parse_experiment(sampled_experiment(), "test"));
  AuditOptions options;
  options.trials = 30;
  options.seed = 7;
  options.workers = 1;
  const EpsilonBound one = audit(prepared, options).bound;
  options.workers = 3;
  const EpsilonBound three = audit(prepared, options).bound;
  EXPECT_EQ(one.epsilon, three.epsilon);
  EXPECT_EQ(one.threshold, three.threshold);
  options.seed = 8;
  EXPECT_NE(audit(prepared, options).bound.threshold, one.threshold);
}

TEST(Audit, TakesTheNoiseOfTheRunThatItAudits) {
  json document = central_experiment();
  document["privacy"].erase("noise_multiplier");
  document["privacy"]["epsilon"] = 2;
  const Prepared prepared = prepare(parse_experiment(document, "test"));
  test::TemporaryFolder folder;
  SimulationOptions run;
  run.folder = folder / "run";
  run_simulation(prepared, run);
  // A run that goes on for twice as long keeps its noise, and that is what the claim is then about.
  document["rounds"] = 4;
  const Prepared longer = prepare(parse_experiment(document, "test"));
  AuditOptions options;
  options.trials = 20;
  options.privacy_noise = open_journal(folder / "run/journal.db", JournalMode::read)->meta("privacy_noise");
  const AuditResult result = audit(longer, options);
  EXPECT_GT(result.claimed, 2.5);
  options.privacy_noise.reset();
  EXPECT_LE(audit(longer, options).claimed, 2);
}

TEST(Audit, RefusesWhatItCannotAudit) {
  const auto problem = [](const json& changes) {
    json document = central_experiment();
    document.merge_patch(changes);
    return test::error_of([&] { audit_of(document, 20); });
  };
  EXPECT_EQ(problem(json::object()), "");
  EXPECT_THAT(problem({{"privacy", nullptr}}), HasSubstr("privacy: missing"));
  EXPECT_THAT(problem({{"privacy", {{"noise_multiplier", 0}}}}), HasSubstr("privacy.noise_multiplier"));
  EXPECT_THAT(problem({{"privacy", {{"mechanism", {{"name", "dp_sgd"}}}, {"unit", "example"}}}}), HasSubstr("privacy.mechanism.name: got \"dp_sgd\""));
}

TEST(Audit, StopsWhenItIsAskedTo) {
  const Prepared prepared = prepare(parse_experiment(central_experiment(), "test"));
  std::atomic<int> polls = 0;
  AuditOptions options;
  options.workers = 2;
  options.should_stop = [&] { return ++polls > 50; };
  EXPECT_THROW(audit(prepared, options), Interrupted);
}

}  // namespace
}  // namespace fl
