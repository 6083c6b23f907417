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

void ClientPlan::fields(Fields& f) {
  f.component("model", model, "model", "what is trained");
  f.component("trainer", trainer, "trainer", "how a client trains");
  f.component("codec", codec, "codec", "how updates are encoded");
  f.integer("seed", seed, {0, INT64_MAX}, "keys the client's random streams");
  f.choice("weighting", weighting, {"examples", "uniform"}, "what an update counts for");
  f.integer("weight_cap", weight_cap, {1, INT64_C(1) << 40}, "examples that a client may count for");
  f.number("client_holdout", client_holdout, {0, 0.9}, "share of the local examples kept for evaluation");
  f.group("shape", [&](Fields& g) { shape_fields(g, shape); }, "of the examples");
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
  return write_fields([&](Fields& f) { copy.fields(f); }).dump();
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
