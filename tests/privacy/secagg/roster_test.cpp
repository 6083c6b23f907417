#include "privacy/secagg/roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "fl_core/base/error.h"
#include "tests/privacy/secagg/secagg_rig.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::HasSubstr;

std::vector<SecAggRosterEntry> some_entries(std::size_t clients) {
  std::vector<SecAggRosterEntry> entries;
  for (std::size_t i = 0; i < clients; ++i) entries.push_back({id_of(i), fixed_key(30, i)});
  return entries;
}

TEST(SecAggCohort, FindsPlacesAndNeighbours) {
  const SecAggCohort roster(some_round(), plan_for(6, 1), some_entries(6));
  EXPECT_EQ(roster.place(id_of(4)), 4U);
  EXPECT_EQ(roster.place(id_of(4) + 1), std::nullopt);
  EXPECT_EQ(roster.client(5), id_of(5));
  EXPECT_EQ(roster.least_survivors(), 5U);
  EXPECT_EQ(roster.degree(), 4U);
  EXPECT_EQ(roster.count_neighbours(2, SecAggSet(6, true)), 4U);
  EXPECT_EQ(roster.count_neighbours(2, SecAggSet(6, false)), 0U);
}

// All that two clients might disagree about changes the hash that their keys are bound to.
TEST(SecAggCohort, DigestCoversRoundModelPlanAndAdverts) {
  const SecAggRound round = some_round();
  const SecAggPlan plan = plan_for(6, 1);
  std::vector<SecAggDigest> digests{SecAggCohort(round, plan, some_entries(6)).digest()};
  const auto add = [&](const SecAggRound& other_round, const SecAggPlan& other_plan,
                       const std::vector<SecAggRosterEntry>& entries) {
    digests.push_back(SecAggCohort(other_round, other_plan, entries).digest());
  };
  SecAggRound changed = round;
  changed.round = 6;
  add(changed, plan, some_entries(6));
  changed = round;
  changed.session[3] ^= std::byte{1};
  add(changed, plan, some_entries(6));
  changed = round;
  changed.model_hash[3] ^= std::byte{1};
  add(changed, plan, some_entries(6));
  const auto with = [&](auto change) {
    SecAggPlan other = plan;
    change(other);
    add(round, other, some_entries(6));
  };
  with([](SecAggPlan& p) { p.adversary_rate = 0.01; });
  with([](SecAggPlan& p) { p.dropout_rate = 0; });
  with([](SecAggPlan& p) { p.server = ServerModel::curious; });
  with([](SecAggPlan& p) { p.security_bits = 41; });
  with([](SecAggPlan& p) { p.correctness_bits = 21; });
  with([](SecAggPlan& p) { p.minimum_survivors = 4; });
  with([](SecAggPlan& p) { p.bits = 31; });
  with([](SecAggPlan& p) { p.length = 6; });
  auto entries = some_entries(6);
  entries[2].advert[0] ^= std::byte{1};
  add(round, plan, entries);
  entries = some_entries(6);
  entries[5].client += 1;
  add(round, plan, entries);
  add(round, plan, some_entries(7));
  std::ranges::sort(digests);
  EXPECT_EQ(std::ranges::adjacent_find(digests), digests.end());
}

// So that clients with different rosters share no key, whatever else is equal.
TEST(SecAggCohort, KeysAndSealsAreBoundToTheDigest) {
  const SecAggCohort roster(some_round(), plan_for(6, 1), some_entries(6));
  const AgreementContext context = roster.agreement(AgreementPurpose::pairwise_mask, id_of(1), id_of(2));
  EXPECT_EQ(context.session, roster.digest());
  EXPECT_EQ(context.round, some_round().round);
  EXPECT_EQ(context.purpose, AgreementPurpose::pairwise_mask);
  EXPECT_EQ(context.own, id_of(1));
  EXPECT_EQ(context.peer, id_of(2));
  EXPECT_EQ(roster.address(id_of(1), id_of(2)).session, roster.digest());
  const SecAggCohort other(some_round(), plan_for(6, 2), some_entries(6));
  const SecretKey seed(fixed_key(31, 0));
  EXPECT_FALSE(equal_in_constant_time(roster.self_mask(seed, 7).bytes(), other.self_mask(seed, 7).bytes()));
  EXPECT_NE(roster.seed_commitment(seed, 7), other.seed_commitment(seed, 7));
  EXPECT_NE(roster.seed_commitment(seed, 7), roster.seed_commitment(seed, 8));
}

TEST(SecAggCohort, StatementsTellSetsApart) {
  const SecAggCohort roster(some_round(), plan_for(6, 1), some_entries(6));
  const SecAggSet all(6, true);
  SecAggSet some = all;
  some[3] = false;
  EXPECT_NE(roster.survivor_statement(all, all), roster.survivor_statement(all, some));
  EXPECT_NE(roster.survivor_statement(all, some), roster.survivor_statement(some, all));
  EXPECT_NE(roster.survivor_statement(all, some), roster.survivor_statement(some, some));
}

TEST(SecAggCohort, RefusesWhatNoRoundCanHave) {
  const auto reason = [](const SecAggPlan& plan, const std::vector<SecAggRosterEntry>& entries) {
    return refusal_of([&] { const SecAggCohort roster(some_round(), plan, entries); });
  };
  EXPECT_THAT(reason(plan_for(6, 1), some_entries(2)), HasSubstr("the roster has 2 clients; a round needs 3 to 65536"));
  EXPECT_THAT(reason(plan_for(6, 1), std::vector<SecAggRosterEntry>(65'537)),
              HasSubstr("the roster has 65537 clients"));
  SecAggPlan hostile = plan_for(6, 0);
  hostile.adversary_rate = 0.95;
  EXPECT_THAT(reason(hostile, some_entries(6)), HasSubstr("no graph of 6 clients is safe"));
  auto entries = some_entries(6);
  entries[3].client = entries[2].client;
  EXPECT_THAT(reason(plan_for(6, 1), entries), HasSubstr("lists client 1014 twice or out of order"));
}

// 0.33 of 100 are 33, 0.05 of 10 none; minimum_survivors is a floor.
TEST(SecAggPlan, CountsTheLeastSurvivors) {
  SecAggPlan plan;
  plan.dropout_rate = 0.33;
  EXPECT_EQ(graph_for(plan, 100).least_survivors, 67U);
  plan.dropout_rate = 0.05;
  EXPECT_EQ(graph_for(plan, 10).least_survivors, 10U);
  plan.minimum_survivors = 20;
  EXPECT_EQ(graph_for(plan, 10).least_survivors, 20U);
}

/// A roster may turn out smaller than the cohort that the rates were chosen for: 40 % of 5 are 2, and no graph of 5 stands more than 1.
TEST(SecAggPlan, ASmallRosterStandsWhatItCan) {
  SecAggPlan plan;
  plan.adversary_rate = 0;
  plan.dropout_rate = 0.4;
  EXPECT_EQ(graph_for(plan, 8).least_survivors, 5U);
  EXPECT_EQ(graph_for(plan, 5).least_survivors, 4U);
  EXPECT_EQ(graph_for(plan, 5).parameters, find_graph_parameters({5, 0, 0.2}));
  EXPECT_EQ(graph_for(plan, 4).least_survivors, 3U);
  EXPECT_THROW(planned_graph(plan, 5), ConfigError);
  EXPECT_EQ(planned_graph(plan, 8), graph_for(plan, 8).parameters);
  plan.adversary_rate = 0.95;
  EXPECT_THROW(graph_for(plan, 4), ConfigError) << "there is none at all";
}

TEST(SecAggPlan, RefusesNumbersOutOfRange) {
  const auto reason = [](auto change) {
    SecAggPlan plan = plan_for(6, 1);
    change(plan);
    try {
      check_plan(plan);
    } catch (const ConfigError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_EQ(reason([](SecAggPlan&) {}), "");
  EXPECT_THAT(reason([](SecAggPlan& p) { p.adversary_rate = 1; }),
              HasSubstr("secure_aggregation.adversary_rate is 1.000000"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.dropout_rate = std::nan(""); }),
              HasSubstr("secure_aggregation.dropout_rate is"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.server = static_cast<ServerModel>(7); }),
              HasSubstr("secure_aggregation.server"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.security_bits = 0; }), HasSubstr("security_bits is 0; use 1 to 128"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.correctness_bits = 129; }), HasSubstr("correctness_bits is 129"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.minimum_survivors = 2; }),
              HasSubstr("minimum_survivors is 2; use 3 to 65536"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.bits = 65; }), HasSubstr("bits is 65; use 1 to 64"));
  EXPECT_THAT(reason([](SecAggPlan& p) { p.length = 0; }), HasSubstr("length is 0"));
}

}  // namespace
}  // namespace fl
