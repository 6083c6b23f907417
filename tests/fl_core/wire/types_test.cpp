#include "fl_core/round/types.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;

RoundReport full_report() {
  RoundReport report;
  report.round = 7;
  report.model_version = 6;
  report.abandoned = true;
  report.cohort = {{3, Outcome::accepted}, {std::numeric_limits<ClientId>::max(), Outcome::late}, {9, Outcome::accepted}};
  report.bytes_down = std::numeric_limits<std::uint64_t>::max();
  report.bytes_up = 1;
  report.examples = std::numeric_limits<std::int64_t>::max();
  report.steps = 12;
  report.training_loss = 0.1;
  report.update_norm = std::numeric_limits<double>::denorm_min();
  report.virtual_seconds = std::nextafter(1.0, 2.0);
  report.wall_seconds = std::numeric_limits<double>::max();
  report.wall_seconds_evaluation = -0.0;
  report.wall_seconds_evaluation_alone = 0x1p-1074;
  report.accuracy = 2.0 / 3.0;
  report.loss = 1e-300;
  report.class_accuracy = {0.25, 1.0 / 3.0};
  report.client_accuracy = {0.0, 0.7};
  return report;
}

/// As it goes through a file.
RoundReport through_text(const RoundReport& report) { return report_from_json(json::parse(to_json(report).dump())); }

void expect_same_bits(double a, double b) { EXPECT_EQ(std::bit_cast<std::uint64_t>(a), std::bit_cast<std::uint64_t>(b)); }

TEST(RoundReport, ComesBackFromItsJsonBitForBit) {
  const RoundReport sent = full_report();
  const RoundReport got = through_text(sent);
  EXPECT_EQ(got.round, sent.round);
  EXPECT_EQ(got.model_version, sent.model_version);
  EXPECT_EQ(got.abandoned, sent.abandoned);
  ASSERT_EQ(got.cohort.size(), sent.cohort.size());
  for (std::size_t i = 0; i < sent.cohort.size(); ++i) {
    EXPECT_EQ(got.cohort[i].client, sent.cohort[i].client);
    EXPECT_EQ(got.cohort[i].outcome, sent.cohort[i].outcome);
  }
  EXPECT_EQ(got.bytes_down, sent.bytes_down);
  EXPECT_EQ(got.bytes_up, sent.bytes_up);
  EXPECT_EQ(got.examples, sent.examples);
  EXPECT_EQ(got.steps, sent.steps);
  expect_same_bits(got.training_loss, sent.training_loss);
  expect_same_bits(got.update_norm, sent.update_norm);
  expect_same_bits(got.virtual_seconds, sent.virtual_seconds);
  expect_same_bits(got.wall_seconds, sent.wall_seconds);
  expect_same_bits(got.wall_seconds_evaluation, sent.wall_seconds_evaluation);
  expect_same_bits(got.wall_seconds_evaluation_alone, sent.wall_seconds_evaluation_alone);
  ASSERT_TRUE(got.accuracy && got.loss);
  expect_same_bits(*got.accuracy, *sent.accuracy);
  expect_same_bits(*got.loss, *sent.loss);
  EXPECT_EQ(got.class_accuracy, sent.class_accuracy);
  EXPECT_EQ(got.client_accuracy, sent.client_accuracy);
}

TEST(RoundReport, LeavesOutWhatWasNotMeasured) {
  const json line = to_json(RoundReport());
  for (const char* key : {"accuracy", "loss", "class_accuracy", "client_accuracy"}) EXPECT_FALSE(line.contains(key)) << key;
  const RoundReport got = report_from_json(line);
  EXPECT_FALSE(got.accuracy || got.loss);
  EXPECT_TRUE(got.class_accuracy.empty() && got.client_accuracy.empty() && got.cohort.empty());
}

TEST(RoundReport, OfAnOlderRunEvaluatedWhileNothingElseWentOn) {
  json line = to_json(RoundReport());
  line["wall_seconds_evaluation"] = 2.5;
  line.erase("wall_seconds_evaluation_alone");
  EXPECT_EQ(report_from_json(line).wall_seconds_evaluation_alone, 2.5);
}

TEST(RoundReport, WritesNullForWhatIsNotFiniteAndReadsNaN) {
  RoundReport report;
  report.training_loss = std::numeric_limits<double>::infinity();
  report.loss = std::numeric_limits<double>::quiet_NaN();
  report.class_accuracy = {0.5, std::numeric_limits<double>::quiet_NaN()};
  EXPECT_THAT(to_json(report).dump(), HasSubstr("\"training_loss\":null"));
  const RoundReport got = through_text(report);
  EXPECT_TRUE(std::isnan(got.training_loss));
  ASSERT_TRUE(got.loss);
  EXPECT_TRUE(std::isnan(*got.loss));
  ASSERT_EQ(got.class_accuracy.size(), 2U);
  EXPECT_TRUE(std::isnan(got.class_accuracy[1]));
}

TEST(RoundReport, CountsOutcomesByName) {
  const RoundReport report = full_report();
  EXPECT_EQ(report.count(Outcome::accepted), 2U);
  EXPECT_EQ(report.count(Outcome::late), 1U);
  EXPECT_EQ(report.count(Outcome::failed), 0U);
  EXPECT_EQ(to_json(report)["outcomes"], (json{{"accepted", 2}, {"late", 1}}));
}

TEST(RoundReport, RefusesDamagedJsonNamingTheKey) {
  const json good = to_json(full_report());
  const auto error_with = [&](const char* key, const json& value) {
    json bad = good;
    bad[key] = value;
    return error_of([&] { report_from_json(bad); });
  };
  EXPECT_THAT(error_with("round", -1), HasSubstr("report.round: got -1"));
  EXPECT_THAT(error_with("round", 4294967296), HasSubstr("report.round"));
  EXPECT_THAT(error_with("steps", 1.0), HasSubstr("report.steps"));
  EXPECT_THAT(error_with("abandoned", 0), HasSubstr("report.abandoned"));
  EXPECT_THAT(error_with("loss", "low"), HasSubstr("report.loss"));
  EXPECT_THAT(error_with("class_accuracy", 1), HasSubstr("report.class_accuracy"));
  EXPECT_THAT(error_with("cohort", {{"clients", {1, 2}}, {"outcomes", {0}}}), HasSubstr("report.cohort"));
  EXPECT_THAT(error_with("cohort", {{"clients", {1}}, {"outcomes", {kOutcomes}}}), HasSubstr("report.cohort.outcomes: got 10"));
  json without = good;
  without.erase("bytes_up");
  EXPECT_THAT(error_of([&] { report_from_json(without); }), HasSubstr("report.bytes_up"));
  EXPECT_THAT(error_of([] { report_from_json(json::array()); }), HasSubstr("report: got []"));
}

TEST(Outcome, HasAStableNumberAndNameForReports) {
  std::vector<std::string> names;
  for (std::size_t i = 0; i < kOutcomes; ++i) names.push_back(outcome_name(static_cast<Outcome>(i)));
  EXPECT_THAT(names, ElementsAre("accepted", "left", "late", "failed", "malformed", "wrong_round", "wrong_model",
                                 "not_finite", "out_of_bound", "not_summed"));
}

}  // namespace
}  // namespace fl
