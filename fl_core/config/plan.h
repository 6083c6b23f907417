#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/config/experiment.h"
#include "fl_core/ml/dataset.h"

namespace fl {

/// A device's part of a promise of differential privacy: enough to rebuild the promise and to judge it.
struct PrivacyPlan {
  PrivacyOptions section;            ///< of the experiment
  double noise_multiplier = 0;       ///< given or calibrated
  double cohort = 1;                 ///< these as in PrivacySetting
  std::int64_t max_cohort = 1;
  std::int64_t minimum_cohort = 1;
  double sampling_rate = 1;
  std::int64_t rounds = 1;
  std::int64_t separation = 1;
  std::int64_t example_steps = 0;
  std::int64_t bound_bits = 6;

  void fields(Fields& f);
};

/// What devices must know of secure aggregation: with the privacy plan, it fixes the integers that are summed.
struct SecureAggregationPlan {
  SecureAggregationOptions section;  ///< of the experiment
  std::int64_t max_cohort = 1;       ///< the most updates of a round: sums have room for so many
  std::int64_t bound_bits = 6;       ///< round.update_bound_bits

  void fields(Fields& f);
};

/// The part of an experiment that a deployed client must know; the server sends it as JSON in its welcome. It is data: a
/// model is a list of stages, a component is a name with options, and both are validated before they are used.
struct ClientPlan {
  nlohmann::json model;
  nlohmann::json trainer;
  nlohmann::json codec;
  std::int64_t seed = 1;
  std::string weighting = "examples";
  std::int64_t weight_cap = 65535;
  double client_holdout = 0;
  ExampleShape shape;  ///< of the examples that the model was built for
  std::optional<PrivacyPlan> privacy;
  std::optional<SecureAggregationPlan> secure_aggregation;

  void fields(Fields& f);
};

ClientPlan plan_of(const Experiment& experiment, const ExampleShape& shape);
/// One line of JSON; the same plan gives the same text. Without privacy or secure aggregation their keys are left out, as they were before there was any.
std::string plan_text(const ClientPlan& plan);
/// Throws ConfigError "the server's plan: …": the text comes from a peer, and may name components that this build lacks.
ClientPlan parse_plan(const std::string& text);

/// {"input": [1, 28, 28], "classes": 10, "vocabulary": 0}.
void shape_fields(Fields& f, ExampleShape& shape);
/// "1x28x28".
std::string shape_text(const ExampleShape& shape);

}  // namespace fl
