#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/privacy/secagg/secagg_rig.h"

/// A server that keeps to the protocol up to a step and then sends one client something else.
namespace fl::secagg_test {

inline constexpr SecAggStep kSteps[] = {SecAggStep::advertise, SecAggStep::share, SecAggStep::input,
                                        SecAggStep::consistency, SecAggStep::unmask};

/// Everybody is a neighbour of everybody: 6 clients, threshold 3 of 5, at least 4 survivors.
inline SecAggPlan complete() { return plan_for(6, 2); }
/// Each of 6 clients has one that is no neighbour: threshold 3 of 4, at least 5 survivors.
inline SecAggPlan sparse() { return plan_for(6, 1); }

/// Nothing more comes out of the client, whatever is asked.
inline void expect_silent(Rig& rig, std::size_t index) {
  EXPECT_EQ(rig.client(index).step(), SecAggStep::aborted);
  for (const SecAggStep step : kSteps) {
    EXPECT_THROW(rig.answer(step, index, rig.received(index)[step]), ProtocolError) << static_cast<int>(step);
  }
}

using Attack = std::function<SecAggBytes(Rig&, const SecAggBytes&)>;

/// Runs honestly up to `step`; there client 0 gets what the attack makes of its message. It must refuse with `reason`.
inline void expect_refusal(const SecAggPlan& plan, SecAggStep step, const std::string& reason, const Attack& attack) {
  Rig rig(6, plan);
  rig.run(static_cast<SecAggStep>(static_cast<int>(step) - 1));
  const SecAggBytes honest = rig.pending_for(0);
  ASSERT_FALSE(honest.empty());
  const SecAggBytes message = attack(rig, honest);
  EXPECT_NE(message, honest) << "no attack at all: " << reason;
  SecAggBytes leaked;
  EXPECT_THAT(refusal_of([&] { leaked = rig.answer(step, 0, message); }), ::testing::HasSubstr(reason));
  EXPECT_TRUE(leaked.empty());
  EXPECT_THAT(rig.client(0).abort_reason(), ::testing::HasSubstr("secure aggregation, round 5: "));
  EXPECT_THAT(rig.client(0).abort_reason(), ::testing::HasSubstr(reason));
  rig.received(0)[step] = honest;
  expect_silent(rig, 0);
}

/// Of the 6 clients, in a round that went that far.
inline std::vector<SecAggAdvert> adverts_of(Rig& rig) {
  std::vector<SecAggAdvert> adverts;
  for (std::size_t i = 0; i < 6; ++i) adverts.push_back(decode_advert(rig.round(), rig.sent(i)[SecAggStep::advertise]));
  return adverts;
}

}  // namespace fl::secagg_test
