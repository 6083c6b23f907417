// Whole rounds with honest ends and drop-outs: the exact sum of the survivors, or a clean end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <thread>

#include "tests/privacy/secagg/secagg_rig.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr SecAggStep kSteps[] = {SecAggStep::advertise, SecAggStep::share, SecAggStep::input, SecAggStep::consistency,
                                 SecAggStep::unmask};

struct Count {
  int summed = 0;
  int abandoned = 0;
};

/// Runs a history and checks what holds for every one. Returns whether there was a sum.
bool check_round(std::size_t clients, const SecAggPlan& plan, const History& history) {
  Rig rig(clients, plan);
  const std::optional<SecAggSum> sum = rig.drop(history).run();
  if (!sum) {
    EXPECT_EQ(rig.server().step(), SecAggStep::aborted);
    EXPECT_THAT(rig.server().abort_reason(), AnyOf(HasSubstr("need"), HasSubstr("no graph of")));
    return false;
  }
  EXPECT_EQ(sum->survivors, rig.still_there(SecAggStep::input));
  EXPECT_EQ(sum->values, rig.sum_of(sum->survivors));
  EXPECT_EQ(rig.server().abort_reason(), "");
  return true;
}

/// Whether at most the planned number drops out in all: then the round must succeed on a complete graph.
bool is_planned(const SecAggPlan& plan, const History& history) {
  // The plan counts the drop-outs of those who advertised.
  const auto cohort = std::ranges::count_if(history, [](SecAggStep step) { return step > SecAggStep::advertise; });
  const auto left = std::ranges::count(history, SecAggStep::done);
  return cohort - left <= static_cast<std::int64_t>(plan.dropout_rate * static_cast<double>(cohort) + 1e-9);
}

/// All histories of that many clients, or `sample` of them.
Count sweep(std::size_t clients, const SecAggPlan& plan, std::size_t sample) {
  std::size_t histories = 1;
  for (std::size_t i = 0; i < clients; ++i) histories *= 6;
  Rng rng(kSeed, Purpose::dropout, clients, sample);
  Count count;
  const bool all = sample >= histories;
  for (std::size_t i = 0; i < std::min(sample, histories); ++i) {
    std::size_t code = all ? i : rng.below(histories);
    History history;
    for (std::size_t c = 0; c < clients; ++c, code /= 6) history.push_back(static_cast<SecAggStep>(code % 6));
    const bool summed = check_round(clients, plan, history);
    (summed ? count.summed : count.abandoned)++;
    if (testing::Test::HasFailure()) break;
  }
  return count;
}

/// Every set of clients that leaves before the same step.
void sweep_subsets(std::size_t clients, const SecAggPlan& plan) {
  for (const SecAggStep step : kSteps) {
    for (std::size_t gone = 0; gone < std::size_t{1} << clients; ++gone) {
      History history(clients, SecAggStep::done);
      for (std::size_t c = 0; c < clients; ++c) {
        if ((gone >> c & 1U) != 0) history[c] = step;
      }
      const bool summed = check_round(clients, plan, history);
      if (step != SecAggStep::advertise && is_planned(plan, history)) {
        EXPECT_TRUE(summed) << "step " << static_cast<int>(step) << ", gone " << gone;
      }
      if (testing::Test::HasFailure()) return;
    }
  }
}

/// The whole sweep takes minutes; the short one takes a sample where there are more than 6^4 histories.
std::size_t histories(std::size_t sample) { return std::getenv("FL_WHOLE_SWEEP") != nullptr ? 1U << 30U : sample; }

TEST(SecAggRounds, GiveTheSumOfAllWhenNobodyLeaves) {
  for (const unsigned bits : {1U, 7U, 20U, 32U, 33U, 63U, 64U}) {
    SecAggPlan plan = plan_for(4, 0);
    plan.bits = bits;
    plan.length = 37;
    Rig rig(4, plan);
    const auto sum = rig.run();
    ASSERT_TRUE(sum.has_value()) << rig.server().abort_reason();
    EXPECT_EQ(sum->values, rig.sum_of({id_of(0), id_of(1), id_of(2), id_of(3)})) << bits << " bits";
  }
}

// With no drop-out planned among 3, degree and threshold are 2: everybody is needed to the end, so one history of 216
// has a sum.
TEST(SecAggRounds, EveryHistoryOfThreeClients) {
  const Count count = sweep(3, plan_for(3, 0), histories(216));
  EXPECT_EQ(count.summed + count.abandoned, 216);
  EXPECT_EQ(count.summed, 1);
}

// Complete graph of 4, threshold 2 of 3 neighbours, one drop-out planned.
TEST(SecAggRounds, EveryHistoryOfFourClients) {
  const Count count = sweep(4, plan_for(4, 1), histories(1296));
  EXPECT_EQ(count.summed + count.abandoned, 1296);
  // All stay: 1. One leaves in one of 4 steps after it advertised: 16. One never advertises: the rest are 3, who plan
  // for 3 / 4 = 0 drop-outs, so with threshold 2 of 2 all three are needed: 4. Two who leave after the vectors leave
  // the others with one neighbour each. In all 21.
  EXPECT_EQ(count.summed, 21);
}

TEST(SecAggRounds, HistoriesOfFiveAndSixClients) {
  EXPECT_GT(sweep(5, plan_for(5, 1), histories(150)).abandoned, 0);
  EXPECT_GT(sweep(6, plan_for(6, 1), histories(150)).abandoned, 0);
}

TEST(SecAggRounds, EverySubsetThatLeavesBeforeAStep) {
  sweep_subsets(4, plan_for(4, 1));
  sweep_subsets(5, plan_for(5, 1));
  sweep_subsets(5, plan_for(5, 2, ServerModel::curious));
  sweep_subsets(6, plan_for(6, 2));
}

// 6 clients with 1 drop-out planned sit in a ring of degree 4 (graph_parameters.h); every other plan above is a
// complete graph.
TEST(SecAggRounds, EverySubsetThatLeavesASparseGraph) {
  Rig rig(6, plan_for(6, 1));
  rig.run(SecAggStep::advertise);
  ASSERT_EQ(rig.server().roster()->degree(), 4U);
  sweep_subsets(6, plan_for(6, 1));
}

TEST(SecAggRounds, RandomDropOutsInSparseGraphs) {
  int summed = 0;
  int abandoned = 0;
  for (const auto& [clients, runs] : std::vector<std::pair<std::size_t, int>>{{30, 4}, {70, 2}, {200, 1}}) {
    SecAggPlan plan = plan_for(clients, 0, ServerModel::curious);
    plan.adversary_rate = 0.05;
    plan.dropout_rate = 0.1;
    for (int run = 0; run < runs; ++run) {
      Rng rng(kSeed, Purpose::dropout, clients, static_cast<std::uint64_t>(run));
      // Every fourth run has more drop-outs than planned.
      const double rate = run == 3 ? 0.3 : 0.05;
      History history(clients, SecAggStep::done);
      for (SecAggStep& step : history) {
        if (rng.uniform() < rate) step = run == 3 ? SecAggStep::input : kSteps[rng.below(5)];
      }
      (check_round(clients, plan, history) ? summed : abandoned)++;
    }
  }
  EXPECT_GE(summed, 5);
  EXPECT_GE(abandoned, 1);
}

TEST(SecAggRounds, SparseGraphsAreSparse) {
  SecAggPlan plan = plan_for(200, 20, ServerModel::curious);
  plan.adversary_rate = 0.05;
  EXPECT_LT(planned_graph(plan, 200).degree, 60U);
}

// Threshold 3 of 5 neighbours among 6 with 2 drop-outs planned. Every client that stays keeps one share less than
// needed if 3 stay.
TEST(SecAggRounds, EndWithoutUnmaskingOneBelowTheThreshold) {
  Rig rig(6, plan_for(6, 2));
  rig.run(SecAggStep::input);
  ASSERT_EQ(rig.server().roster()->threshold(), 3U);
  for (std::size_t i = 0; i < 3; ++i) {
    rig.hand_in(SecAggStep::consistency, i, rig.answer(SecAggStep::consistency, i, rig.pending_for(i)));
  }
  EXPECT_TRUE(rig.server().close_confirmations().empty());
  EXPECT_EQ(rig.server().step(), SecAggStep::aborted);
  EXPECT_THAT(rig.server().abort_reason(),
              HasSubstr("only 2 neighbours of client 1000 confirmed the survivors; 3 are needed"));
  for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(rig.sent(i).count(SecAggStep::unmask), 0U);
}

TEST(SecAggRounds, GiveNoSumWhenSharesAreMissingAtTheEnd) {
  History history(6, SecAggStep::done);
  history[0] = history[1] = history[2] = SecAggStep::unmask;
  Rig rig(6, plan_for(6, 2));
  EXPECT_FALSE(rig.drop(history).run().has_value());
  EXPECT_THAT(rig.server().abort_reason(), HasSubstr("shares of client"));
}

TEST(SecAggRounds, AreTheSameBitsForTheSameSeeds) {
  Rig first(5, plan_for(5, 1));
  Rig second(5, plan_for(5, 1));
  first.run();
  second.run();
  for (std::size_t i = 0; i < 5; ++i) EXPECT_EQ(first.sent(i), second.sent(i));
}

TEST(SecAggRounds, AVectorThatComesLateIsDiscarded) {
  Rig rig(5, plan_for(5, 1));
  rig.run(SecAggStep::share);
  const std::vector<SecAggMail> inboxes = rig.pending();
  std::vector<SecAggBytes> vectors;
  for (std::size_t i = 0; i < 5; ++i) vectors.push_back(rig.answer(SecAggStep::input, i, rig.pending_for(i)));
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(rig.hand_in(SecAggStep::input, i, vectors[i]), SecAggReceipt::counted);
  EXPECT_EQ(rig.server().waiting(), std::vector<ClientId>{id_of(4)});
  const auto survivors = rig.server().close_inputs();
  ASSERT_EQ(survivors.size(), 4U);
  EXPECT_EQ(rig.hand_in(SecAggStep::input, 4, vectors[4]), SecAggReceipt::late);
  for (std::size_t i = 0; i < 4; ++i)
    rig.hand_in(SecAggStep::consistency, i, rig.answer(SecAggStep::consistency, i, survivors[i].bytes));
  const auto confirmations = rig.server().close_confirmations();
  EXPECT_EQ(rig.hand_in(SecAggStep::input, 4, vectors[4]), SecAggReceipt::late);
  for (std::size_t i = 0; i < 4; ++i)
    rig.hand_in(SecAggStep::unmask, i, rig.answer(SecAggStep::unmask, i, confirmations[i].bytes));
  const auto sum = rig.server().finish();
  ASSERT_TRUE(sum.has_value());
  EXPECT_EQ(rig.hand_in(SecAggStep::input, 4, vectors[4]), SecAggReceipt::late);
  EXPECT_EQ(sum->values, rig.sum_of({id_of(0), id_of(1), id_of(2), id_of(3)}));
  // Who was too late is told nothing, and would answer no list that leaves it out.
  EXPECT_THAT(refusal_of([&] { rig.client(4).confirm(survivors[0].bytes); }),
              HasSubstr("lists this client as dropped out"));
}

/// Backwards, and by two threads that take turns.
std::vector<SecAggParallel> parallel_loops() {
  return {[](std::size_t count, const std::function<void(std::size_t)>& work) {
            while (count > 0) work(--count);
          },
          [](std::size_t count, const std::function<void(std::size_t)>& work) {
            const auto every_other = [&](std::size_t first) {
              for (std::size_t i = first; i < count; i += 2) work(i);
            };
            std::thread other(every_other, 1);
            every_other(0);
            other.join();
          }};
}

// Values of three ranges, the last not full; one client is gone, so masks of both kinds come off.
TEST(SecAggRounds, GiveTheSameSumHoweverItsWorkIsShared) {
  SecAggPlan plan = plan_for(6, 2);
  plan.bits = 56;
  plan.length = 2 * 16'384 + 17;
  History history(6, SecAggStep::done);
  history[2] = SecAggStep::input;
  for (const SecAggParallel& parallel : parallel_loops()) {
    Rig rig(6, plan);
    std::size_t items = 0;
    rig.server().set_parallel([&](std::size_t count, const std::function<void(std::size_t)>& work) {
      items += count;
      parallel(count, work);
    });
    const auto sum = rig.drop(history).run();
    ASSERT_TRUE(sum.has_value()) << rig.server().abort_reason();
    EXPECT_EQ(sum->values, rig.sum_of(rig.still_there(SecAggStep::input)));
    EXPECT_EQ(items, 6U + 3U);  // secrets, ranges
  }
}

// Several secrets cannot be rebuilt: the same one is named, whichever was tried first.
TEST(SecAggRounds, EndForTheSameReasonHoweverTheirWorkIsShared) {
  History history(6, SecAggStep::done);
  history[0] = history[1] = history[2] = SecAggStep::unmask;
  Rig serial(6, plan_for(6, 2));
  EXPECT_FALSE(serial.drop(history).run().has_value());
  for (const SecAggParallel& parallel : parallel_loops()) {
    Rig rig(6, plan_for(6, 2));
    rig.server().set_parallel(parallel);
    EXPECT_FALSE(rig.drop(history).run().has_value());
    EXPECT_EQ(rig.server().abort_reason(), serial.server().abort_reason());
  }
}

TEST(SecAggRounds, TakeALoopThatLeavesSomethingOutForABug) {
  Rig rig(4, plan_for(4, 1));
  rig.server().set_parallel([](std::size_t count, const std::function<void(std::size_t)>& work) {
    for (std::size_t i = 1; i < count; ++i) work(i);
  });
  EXPECT_THROW(rig.run(), Error);
}

TEST(SecAggRounds, RefuseTooFewClients) {
  SecAggPlan plan = plan_for(5, 1);
  plan.minimum_survivors = 5;
  History history(5, SecAggStep::done);
  history[2] = SecAggStep::advertise;
  Rig rig(5, plan);
  EXPECT_FALSE(rig.drop(history).run().has_value());
  EXPECT_THAT(rig.server().abort_reason(), HasSubstr("round 5: the roster has 4 clients; a round needs 5"));
}

}  // namespace
}  // namespace fl
