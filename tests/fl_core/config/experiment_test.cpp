#include "fl_core/config/experiment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

json document_with(const json& changes = json::object()) {
  json document = test::toy_experiment();
  document["round"] = {{"cohort", 10}};
  document["secure_aggregation"] = json::object();
  document.merge_patch(changes);
  return document;
}

std::string error_with(const json& changes) {
  return test::error_of([&] { parse_experiment(document_with(changes), "some.json"); });
}

TEST(SecureAggregationSection, IsOffUnlessItIsThere) {
  json document = document_with();
  document["secure_aggregation"] = nullptr;
  EXPECT_FALSE(parse_experiment(document, "some.json").secure_aggregation);
  document.erase("secure_aggregation");
  EXPECT_FALSE(parse_experiment(document, "some.json").secure_aggregation);
  const auto section = parse_experiment(document_with(), "some.json").secure_aggregation;
  ASSERT_TRUE(section);
  EXPECT_EQ(section->adversary_rate, 0.1);
  EXPECT_EQ(section->dropout_rate, 0.2);
  EXPECT_EQ(section->server, "semi_malicious");
  EXPECT_EQ(section->security_bits, 40);
  EXPECT_EQ(section->correctness_bits, 20);
  EXPECT_EQ(section->minimum_survivors, 3);
  EXPECT_FALSE(section->value_bits);
  EXPECT_EQ(section->step_timeout_s, 60);
}

TEST(SecureAggregationSection, SurvivesBeingWrittenAndRead) {
  const json changes = {{"secure_aggregation", {{"server", "curious"}, {"value_bits", 16}, {"minimum_survivors", 5}}}};
  const Experiment experiment = parse_experiment(document_with(changes), "some.json");
  const Experiment again = parse_experiment(to_json(experiment), "again");
  EXPECT_EQ(to_json(again), to_json(experiment));
  EXPECT_EQ(again.secure_aggregation->value_bits, 16);
}

TEST(SecureAggregationSection, RefusesWhatShowsSingleClients) {
  EXPECT_THAT(error_with({{"round", {{"cohort", 2}}}}), AllOf(StartsWith("some.json: round.cohort: got 2"), HasSubstr("at least 3 (secure_aggregation.minimum_survivors)")));
  EXPECT_THAT(error_with({{"secure_aggregation", {{"minimum_survivors", 11}}}}), HasSubstr("round.cohort: got 10, expected at least 11"));
  EXPECT_THAT(error_with({{"evaluation", {{"per_client_every", 5}, {"client_holdout", 0.1}}}}), HasSubstr("evaluation.per_client_every: got 5, expected 0 under secure_aggregation"));
  EXPECT_EQ(error_with({{"round", {{"cohort", 3}}}}), "");
}

TEST(SecureAggregationSection, RefusesMoreClientsThanARosterHolds) {
  EXPECT_EQ(error_with({{"round", {{"cohort", 65'536}}}}), "");
  EXPECT_THAT(error_with({{"round", {{"cohort", 65'537}}}}), HasSubstr("round.cohort: got 65537, expected at most 65536"));
  EXPECT_THAT(error_with({{"round", {{"cohort", 40'000}, {"over_selection", 1.7}}}}), HasSubstr("times round.over_selection"));
}

TEST(SecureAggregationSection, RefusesNumbersOutOfRange) {
  const auto error_for = [](const char* key, const json& value) { return error_with({{"secure_aggregation", {{key, value}}}}); };
  EXPECT_THAT(error_for("adversary_rate", 0.95), HasSubstr("secure_aggregation.adversary_rate: got 0.95"));
  EXPECT_THAT(error_for("dropout_rate", -0.1), HasSubstr("secure_aggregation.dropout_rate: got -0.1"));
  EXPECT_THAT(error_for("server", "honest"), HasSubstr("secure_aggregation.server: got \"honest\""));
  EXPECT_THAT(error_for("security_bits", 0), HasSubstr("secure_aggregation.security_bits: got 0"));
  EXPECT_THAT(error_for("minimum_survivors", 2), HasSubstr("secure_aggregation.minimum_survivors: got 2"));
  EXPECT_THAT(error_for("value_bits", 7), HasSubstr("secure_aggregation.value_bits: got 7"));
  EXPECT_THAT(error_for("value_bits", 33), HasSubstr("secure_aggregation.value_bits: got 33"));
  EXPECT_THAT(error_for("step_timeout_s", 0), HasSubstr("secure_aggregation.step_timeout_s: got 0"));
  EXPECT_THAT(error_for("drop_out_rate", 0.1), HasSubstr("did you mean 'dropout_rate'?"));
}

}  // namespace
}  // namespace fl
