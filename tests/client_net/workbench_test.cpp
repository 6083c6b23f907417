// What a device makes of a plan's privacy: the server is believed nothing that the device can work out itself.
#include "client/net/workbench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "simulations/simulation.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using testing::HasSubstr;

class WorkbenchPrivacy : public testing::Test {
 protected:
  WorkbenchPrivacy() : prepared_(prepare(parse_experiment(test::toy_experiment(), "test"))), plan_(plan_of(prepared_.experiment, prepared_.data.train->shape())) {
    PrivacyPlan privacy;
    privacy.section.mechanism = {{"name", "local_gaussian"}, {"clip_norm", 0.5}};
    privacy.section.noise_multiplier = 4;
    privacy.section.delta = 1e-5;
    privacy.section.adjacency = "replace_one";
    privacy.section.accountant = {{"name", "gaussian"}};
    privacy.noise_multiplier = 4;
    privacy.rounds = 4;
    plan_.privacy = privacy;
  }

  PlanCheck check(const ClientPlan& plan) {
    Workbench bench({{prepared_.data.train, prepared_.partition->shard(0), prepared_.data.train->shape()}, UINT64_MAX, demand_, {}, keys_, log_, {}, {}});
    return bench.prepare(plan_text(plan), std::string(32, 'a'), 0);
  }
  std::string unfit(const std::function<void(ClientPlan&)>& change) {
    ClientPlan plan = plan_;
    change(plan);
    return check(plan).unfit;
  }

  test::TemporaryFolder folder_;
  Prepared prepared_;
  ClientPlan plan_;
  PrivacyDemand demand_;
  SecureNoiseKeys keys_;
  std::filesystem::path log_ = folder_ / "participations.json";
};

TEST_F(WorkbenchPrivacy, WorksOutItselfWhatARunCosts) {
  const PlanCheck good = check(plan_);
  EXPECT_EQ(good.unfit, "");
  // Four releases of noise 4 under replace_one are one Gaussian of σ / Δ = 4 / (2 · √4) = 1: ε = 4.3772 at δ = 1e-5 (Balle, Wang 2018).
  EXPECT_THAT(good.promise, HasSubstr("epsilon 4.378 at delta 1e-05 for one client (replace_one"));
}

TEST_F(WorkbenchPrivacy, FollowsOnlyWhatItsOwnerAllows) {
  demand_.max_epsilon = 4.4;
  EXPECT_EQ(check(plan_).unfit, "");
  demand_.max_epsilon = 4.3;
  EXPECT_THAT(check(plan_).unfit, HasSubstr("privacy.max_epsilon: the plan costs epsilon 4.378"));
  EXPECT_THAT(unfit([](ClientPlan& plan) { plan.privacy->noise_multiplier = 0; }), HasSubstr("privacy.max_epsilon"));
  demand_ = {};
  EXPECT_EQ(unfit([](ClientPlan& plan) { plan.privacy.reset(); }), "");
  demand_.required = true;
  EXPECT_THAT(unfit([](ClientPlan& plan) { plan.privacy.reset(); }), HasSubstr("privacy.required"));
}

TEST_F(WorkbenchPrivacy, RefusesAPlanThatDoesNotKeepItsPromise) {
  const auto dp_sgd = [](ClientPlan& plan) {
    plan.trainer = {{"name", "dp_sgd"}, {"steps", 30}};
    plan.privacy->section.mechanism = {{"name", "dp_sgd"}, {"sampling_rate", 0.1}};
    plan.privacy->section.unit = "example";
    plan.privacy->section.accountant = {{"name", "pld"}};
    plan.privacy->example_steps = 30;
  };
  EXPECT_EQ(unfit(dp_sgd), "") << "the control";
  EXPECT_THAT(unfit([&](ClientPlan& plan) { dp_sgd(plan); plan.trainer = {{"name", "sgd"}}; }), HasSubstr("this trainer would not keep the promise"));
  EXPECT_THAT(unfit([&](ClientPlan& plan) { dp_sgd(plan); plan.privacy->example_steps = 3; }), HasSubstr("the promise must count all of them"));
  EXPECT_THAT(unfit([](ClientPlan& plan) { plan.privacy->section.adjacency = "add_or_remove_one"; }), HasSubstr("it is seen who answered"));
  EXPECT_THAT(unfit([](ClientPlan& plan) { plan.privacy->section.randomness = "seeded"; }), HasSubstr("privacy.randomness"));
}

TEST_F(WorkbenchPrivacy, OutlivesAPlanOfHugeNumbers) {
  for (const std::int64_t huge : {INT64_C(1) << 32, INT64_C(1) << 40, INT64_MAX}) {
    EXPECT_NE(unfit([&](ClientPlan& plan) { plan.privacy->separation = huge; }), "") << huge;
    EXPECT_NE(unfit([&](ClientPlan& plan) { plan.privacy->rounds = huge; }), "") << huge;
  }
}

TEST_F(WorkbenchPrivacy, NeedsAFolderWhereItCountsOnMemory) {
  log_.clear();
  EXPECT_THAT(check(plan_).unfit, HasSubstr("state: without a folder"));
}

}  // namespace
}  // namespace fl
