#include "fl_core/config/plan.h"

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {

void shape_fields(Fields& f, ExampleShape& shape) {
  f.integers("input", shape.input, 0, {1, 1'000'000}, "shape of one example's features");
  f.integer("classes", shape.classes, {1, 1'000'000}, "classes of the labels");
  f.integer("vocabulary", shape.vocabulary, {0, 10'000'000}, "features are token ids below this; 0 for plain numbers");
}

std::string shape_text(const ExampleShape& shape) {
  std::string text;
  for (const std::int64_t extent : shape.input) text += (text.empty() ? "" : "x") + std::to_string(extent);
  return text;
}

void PrivacyPlan::fields(Fields& f) {
  constexpr std::int64_t kMost = INT64_C(1) << 40;
  f.group("section", [&](Fields& g) { section.fields(g); }, "the experiment's privacy section");
  f.number("noise_multiplier", noise_multiplier, {0, 1e6}, "noise standard deviation over the clip norm");
  f.number("cohort", cohort, {0, 1e12, true}, "expected clients of a round");
  f.integer("max_cohort", max_cohort, {1, kMost}, "the most updates of a round");
  f.integer("minimum_cohort", minimum_cohort, {1, kMost}, "the fewest updates of a round that is released");
  f.number("sampling_rate", sampling_rate, {0, 1, true}, "a client's chance to take part in a round");
  f.integer("rounds", rounds, {1, 10'000'000}, "planned rounds");
  f.integer("separation", separation, {1, 10'000'000}, "rounds from one participation to the next, at least");
  f.integer("example_steps", example_steps, {0, 1'000'000'000}, "steps of private training in a round");
  f.integer("bound_bits", bound_bits, {-10, 16}, "round.update_bound_bits");
}

void SecureAggregationPlan::fields(Fields& f) {
  f.group("section", [&](Fields& g) { section.fields(g); }, "the experiment's secure_aggregation section");
  f.integer("max_cohort", max_cohort, {1, 65'536}, "the most updates of a round");
  f.integer("bound_bits", bound_bits, {-10, 16}, "round.update_bound_bits");
}

void ClientPlan::fields(Fields& f) {
  f.component("model", model, "model", "what is trained");
  f.component("trainer", trainer, "trainer", "how a client trains");
  f.component("codec", codec, "codec", "how updates are encoded");
  f.integer("seed", seed, {0, INT64_MAX}, "keys the client's random streams");
  f.choice("weighting", weighting, {"examples", "uniform"}, "what an update counts for");
  f.integer("weight_cap", weight_cap, {1, INT64_C(1) << 40}, "examples that a client may count for");
  f.number("client_holdout", client_holdout, {0, 0.9}, "share of the local examples kept for evaluation");
  f.group("shape", [&](Fields& g) { shape_fields(g, shape); }, "of the examples");
  bool has_privacy = privacy.has_value();
  PrivacyPlan privacy_plan = privacy.value_or(PrivacyPlan{});
  f.optional_group("privacy", has_privacy, [&](Fields& g) { privacy_plan.fields(g); }, "the device's part of a privacy promise");
  privacy = has_privacy ? std::optional(privacy_plan) : std::nullopt;
  bool has_secure = secure_aggregation.has_value();
  SecureAggregationPlan secure_plan = secure_aggregation.value_or(SecureAggregationPlan{});
  f.optional_group("secure_aggregation", has_secure, [&](Fields& g) { secure_plan.fields(g); }, "the device's part of secure aggregation");
  secure_aggregation = has_secure ? std::optional(secure_plan) : std::nullopt;
}

ClientPlan plan_of(const Experiment& experiment, const ExampleShape& shape) {
  ClientPlan plan;
  plan.model = experiment.model;
  plan.trainer = experiment.trainer;
  plan.codec = experiment.codec;
  plan.seed = experiment.seed;
  plan.weighting = experiment.round.weighting;
  plan.weight_cap = experiment.round.weight_cap;
  plan.client_holdout = experiment.evaluation.client_holdout;
  plan.shape = shape;
  return plan;
}

std::string plan_text(const ClientPlan& plan) {
  ClientPlan copy = plan;
  nlohmann::json document = write_fields([&](Fields& f) { copy.fields(f); });
  if (!copy.privacy) document.erase("privacy");
  if (!copy.secure_aggregation) document.erase("secure_aggregation");
  return document.dump();
}

ClientPlan parse_plan(const std::string& text) {
  try {
    ClientPlan plan;
    read_fields(parse_json(text, "plan"), "", [&](Fields& f) { plan.fields(f); });
    return plan;
  } catch (const ConfigError& error) {
    throw ConfigError(std::string("the server's plan: ") + error.what());
  }
}

}  // namespace fl
