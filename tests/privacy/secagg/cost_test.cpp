#include "privacy/secagg/cost.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "privacy/secagg/envelope.h"
#include "tests/privacy/secagg/secagg_rig.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using secagg_test::Rig;
using ::testing::HasSubstr;

/// Bytes that the envelope with everybody's credential adds to the roster.
std::uint64_t envelope_bytes(std::size_t clients, std::size_t credential) {
  std::vector<Credential> credentials;
  for (std::size_t i = 0; i < clients; ++i) credentials.emplace_back(secagg_test::id_of(i), std::vector<std::byte>(credential));
  return encode_envelope(credentials, {}).size();
}

/// A round without drop-outs; what each client sent and got is compared with the cost.
void expect_real_sizes(std::size_t clients, const SecAggPlan& plan) {
  constexpr std::uint64_t kCredential = 32;
  Rig rig(clients, plan);
  ASSERT_TRUE(rig.run().has_value());
  const SecAggCost cost = secagg_cost(plan, static_cast<std::uint32_t>(clients), kCredential);
  EXPECT_EQ(cost.degree, rig.server().roster()->degree());
  EXPECT_EQ(cost.threshold, rig.server().roster()->threshold());
  EXPECT_EQ(cost.least_survivors, rig.server().roster()->least_survivors());
  for (std::size_t i = 0; i < clients; ++i) {
    for (auto step = SecAggStep::advertise; step <= SecAggStep::unmask; step = Rig::next(step)) {
      SCOPED_TRACE("client " + std::to_string(i) + ", step " + std::to_string(static_cast<int>(step)));
      const std::uint64_t up = rig.sent(i)[step].size() + (step == SecAggStep::advertise ? kCredential : 0);
      const std::uint64_t down = rig.received(i)[step].size() + (step == SecAggStep::share ? envelope_bytes(clients, kCredential) : 0);
      EXPECT_EQ(cost.steps[static_cast<std::size_t>(step)].up, up);
      EXPECT_EQ(cost.steps[static_cast<std::size_t>(step)].down, down);
    }
  }
}

TEST(SecAggCost, BytesAreThoseOfTheMessages) {
  SecAggPlan plan = secagg_test::plan_for(11, 2);
  expect_real_sizes(11, plan);  // everybody is everybody's neighbour
  plan.bits = 57;
  plan.length = 13;  // the last byte of the vector is not full
  expect_real_sizes(11, plan);
  plan.adversary_rate = 0.05;
  plan.dropout_rate = 0.05;
  plan.server = ServerModel::curious;
  expect_real_sizes(40, plan);
  EXPECT_LT(secagg_cost(plan, 40).degree, 39U) << "this was to be a graph that is not complete";
}

TEST(SecAggCost, SumsItsSteps) {
  const SecAggCost cost = secagg_cost(secagg_test::plan_for(10, 2), 10);
  // A box holds two shares of 36 bytes, 28 bytes of nonce and tag, and the peer's id.
  const std::uint64_t k = cost.degree;
  EXPECT_EQ(cost.bytes_up(), (180 + 500) + (80 + 108 * k) + (44 + 20) + 108 + (48 + 45 * k));
  EXPECT_EQ(cost.bytes_down(), (4 + 10 * 512) + (52 + 40 * 10 + 136 * k) + (48 + 2 + 108 * k) + (44 + 2) + (48 + 72 * k));
}

TEST(SecAggCost, CountsWholeClients) {
  SecAggPlan plan;
  plan.length = 10;
  plan.adversary_rate = 0.1;
  plan.dropout_rate = 0.2;
  const SecAggCost four = secagg_cost(plan, 4);
  EXPECT_EQ(four.dropouts(), 0U);
  EXPECT_EQ(four.adversaries, 0U);
  const SecAggCost hundred = secagg_cost(plan, 100);
  EXPECT_EQ(hundred.dropouts(), 20U);
  EXPECT_EQ(hundred.adversaries, 10U);
  EXPECT_EQ(hundred.least_survivors, 80U);
  plan.minimum_survivors = 95;
  EXPECT_EQ(secagg_cost(plan, 100).dropouts(), 5U) << "an owner's floor is above the rate's";
}

TEST(SecAggCost, SecondsGrowWithTheWork) {
  SecAggPlan plan;
  plan.length = 1000;
  const SecAggCost small = secagg_cost(plan, 100);
  EXPECT_GT(small.client_seconds, 0);
  EXPECT_GT(small.server_seconds, 0);
  EXPECT_GT(small.server_seconds_at_worst, small.server_seconds) << "masks of those who left have to be made again";
  plan.length = 1'000'000;
  const SecAggCost large = secagg_cost(plan, 100);
  EXPECT_GT(large.client_seconds, small.client_seconds);
  EXPECT_GT(large.server_seconds, small.server_seconds);
  plan.bits = 64;
  EXPECT_GT(secagg_cost(plan, 100).client_seconds, large.client_seconds);
  plan.dropout_rate = 0;
  EXPECT_EQ(secagg_cost(plan, 100).server_seconds_at_worst, secagg_cost(plan, 100).server_seconds);
}

/// docs/secure-aggregation.md, "Small cohorts".
TEST(SecAggCost, SmallCohortsStandWhatTheDocumentSays) {
  const std::vector<std::uint32_t> clients = {3, 4, 5, 6, 8, 10, 15, 20};
  const std::vector<std::vector<int>> most_dropouts = {{0, 1, 1, 2, 3, 4, 6, 9}, {0, 0, 1, 1, 2, 3, 6, 8}, {-1, 0, 0, 1, 2, 3, 5, 8}};
  for (std::size_t adversaries = 0; adversaries < most_dropouts.size(); ++adversaries) {
    for (std::size_t i = 0; i < clients.size(); ++i) {
      int most = -1;
      for (std::uint32_t dropouts = 0; dropouts + 3 <= clients[i]; ++dropouts) {
        SecAggPlan plan = secagg_test::plan_for(clients[i], dropouts);
        plan.adversary_rate = static_cast<double>(adversaries) / clients[i];
        if (!test::error_of([&] { secagg_cost(plan, clients[i]); }).empty()) continue;
        EXPECT_EQ(secagg_cost(plan, clients[i]).dropouts(), dropouts);
        most = static_cast<int>(dropouts);
      }
      EXPECT_EQ(most, most_dropouts[adversaries][i]) << clients[i] << " clients, of them the server's: " << adversaries;
    }
  }
}

TEST(SecAggCost, RefusesWhatNoRoundCanBe) {
  SecAggPlan plan;
  plan.length = 10;
  EXPECT_THAT(test::error_of([&] { secagg_cost(plan, 2); }), HasSubstr("2 clients in a round; expected 3"));
  plan.minimum_survivors = 11;
  EXPECT_THAT(test::error_of([&] { secagg_cost(plan, 10); }), HasSubstr("secure_aggregation.minimum_survivors: got 11, expected at most the 10 clients"));
  plan.minimum_survivors = 3;
  plan.adversary_rate = 0.5;
  plan.dropout_rate = 0.4;
  EXPECT_THAT(test::error_of([&] { secagg_cost(plan, 10); }), HasSubstr("2 * dropout_rate is 1.3"));
  plan.bits = 65;
  EXPECT_THAT(test::error_of([&] { secagg_cost(plan, 10); }), HasSubstr("secure_aggregation.bits"));
}

}  // namespace
}  // namespace fl
