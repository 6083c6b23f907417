#include "tests/privacy/accounting/vectors.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>

namespace fl::test {

const nlohmann::json& privacy_vectors() {
  static const nlohmann::json vectors = [] {
    std::ifstream file(FL_TEST_DATA "/privacy_vectors.json");
    return nlohmann::json::parse(file);
  }();
  return vectors;
}

std::vector<PrivacyEvent> Vector::events() const {
  if (!params.contains("phases")) return {event()};
  std::vector<PrivacyEvent> events;
  for (const auto& phase : params.at("phases")) {
    events.push_back(PrivacyEvent::gaussian(phase.value("q", 1.0), phase.at("sigma"), phase.at("steps")));
  }
  return events;
}

namespace {

Vector read(const nlohmann::json& entry) {
  const auto number = [&](const char* key) {
    return entry.at(key).is_null() ? std::numeric_limits<double>::quiet_NaN() : entry.at(key).get<double>();
  };
  Vector vector;
  vector.id = entry.at("id");
  vector.kind = entry.at("kind");
  vector.accountant = entry.at("accountant");
  vector.mechanism = entry.at("mechanism");
  vector.adjacency = entry.at("adjacency");
  vector.q = number("q");
  vector.sigma = number("sigma");
  vector.steps = number("steps");
  vector.delta = number("delta");
  vector.epsilon = number("epsilon");
  vector.tolerance = number("tolerance");
  vector.params = entry.at("params");
  return vector;
}

}  // namespace

std::vector<Vector> vectors_of(const std::string& kind, const std::string& accountant) {
  std::vector<Vector> found;
  for (const auto& entry : privacy_vectors().at("vectors")) {
    if (entry.at("kind") == kind && entry.at("accountant") == accountant) found.push_back(read(entry));
  }
  return found;
}

const std::vector<HandledVectors>& handled_vectors() {
  static const std::vector<HandledVectors> handled{
      {"forward", "rdp", "RdpVectors.EpsilonIsThatOfOtherLibraries"},
      {"forward", "gdp_clt", "CltVectors.ExactCompositionExceedsTheCentralLimit"},
      {"forward", "prv_upper", "PldVectors"},
      {"forward", "pld", "PldVectors"},
      {"forward_heterogeneous", "rdp", "RdpVectors.UnlikeEventsAddUp"},
      {"rdp_value", "rdp", "RdpVectors.DivergenceAtAnOrder"},
      {"rdp_to_epsilon", "rdp", "RdpVectors.FlatDivergenceConverts"},
      {"upper_bound", "rdp_tree", "RdpVectors.TreeOfOneEpochStaysBelow"},
      {"zcdp_to_epsilon", "zcdp_via_rdp", "ZcdpVectors.RhoConverts"},
      {"calibrate_sigma", "rdp", "RdpVectors.CalibrationNeedsThatNoise"},
      {"calibrate_sigma", "gdp_clt", "CltVectors.CalibrationByTheCentralLimitIsTooLittleNoise"},
      {"calibrate_sigma", "prv_upper", "PldVectors"},
      {"calibrate_sigma", "pld", "PldVectors"},
      {"calibrate_sigma", "exact_hockey_stick", "GaussianVectors and PldVectors (with sampling)"},
      {"delta_for_epsilon", "pld", "PldVectors"},
      {"delta_for_epsilon", "exact_hockey_stick",
       "GaussianVectors, PldVectors (with sampling), PldLossVectors (discrete)"},
      {"delta_for_epsilon_heterogeneous", "exact_hockey_stick", "GaussianVectors.UnlikeEventsAreOne"},
      {"advanced_composition", "advanced_composition", "PldLossVectors.AdvancedComposition"},
  };
  return handled;
}

namespace {

TEST(PrivacyVectors, EveryKindIsHandledBySomeTest) {
  std::set<std::string> ids;
  for (const auto& entry : privacy_vectors().at("vectors")) {
    const Vector vector = read(entry);
    const bool known =
        std::any_of(handled_vectors().begin(), handled_vectors().end(), [&](const HandledVectors& handled) {
          return vector.kind == handled.kind && vector.accountant == handled.accountant;
        });
    EXPECT_TRUE(known) << vector.id << ": no test for " << vector.kind << " of " << vector.accountant;
    EXPECT_TRUE(ids.insert(vector.id).second) << vector.id << " twice";
    EXPECT_FALSE(entry.at("source").get<std::string>().empty()) << vector.id;
  }
  EXPECT_EQ(ids.size(), 141u);
}

TEST(PrivacyVectors, NoHandledKindIsEmpty) {
  for (const HandledVectors& handled : handled_vectors()) {
    EXPECT_FALSE(vectors_of(handled.kind, handled.accountant).empty()) << handled.kind << " of " << handled.accountant;
  }
}

}  // namespace
}  // namespace fl::test
