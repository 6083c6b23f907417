#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <variant>
#include <vector>

#include "fl_core/ml/dataset.h"
#include "fl_core/ml/model.h"
#include "fl_core/params/layout.h"

namespace fl {

/// How a slot gets its first values. uniform: U(-bound, bound); normal: N(0, bound²); constant: bound.
struct Initialisation {
  enum class Kind : std::uint8_t { uniform, normal, constant } kind = Kind::constant;
  double bound = 0;
};

/// One step of a network, with every size resolved. `slots` are indices into Architecture::layout.
struct StageSpec {
  struct Conv { std::int64_t in, out, kernel, stride, padding, groups; bool bias; };
  struct Linear { std::int64_t in, out; bool bias; };
  struct Activation { enum class Kind : std::uint8_t { relu, gelu, tanh } kind; };
  struct Pool { bool max; std::int64_t kernel, stride, padding; bool global; };
  struct Flatten {};
  struct Dropout { double probability; };
  struct GroupNorm { std::int64_t groups, channels; double epsilon; };
  struct BatchNorm { std::int64_t channels; double momentum, epsilon; };
  struct Embedding { std::int64_t vocabulary, dimension; };
  /// Input [time, features] -> output [hidden] (last step) or [time, hidden].
  struct Lstm { std::int64_t features, hidden, layers; bool whole_sequence; };
  /// out = body(x) + shortcut(x); an empty shortcut is the identity.
  struct Residual { std::vector<StageSpec> body, shortcut; };

  using Kind = std::variant<Conv, Linear, Activation, Pool, Flatten, Dropout, GroupNorm, BatchNorm, Embedding, Lstm, Residual>;
  Kind kind;
  std::vector<std::size_t> slots;        ///< this stage's own parameters, in the order its executor expects
  std::vector<std::int64_t> output;      ///< shape of one example after this stage
  std::int64_t flops = 0;                ///< forward, one example, multiply-add = 2 (nested stages included)
};

/// A network as data (DESIGN: "models are data"): parsed from JSON, shapes inferred, nothing executed. Torch-free, so that
/// any executor (LibTorch today) can run it.
struct Architecture {
  ExampleShape shape;
  std::vector<StageSpec> stages;
  SharedLayout layout;
  std::vector<Initialisation> initial;   ///< one a slot
  ModelCost cost;
};

/// Parses {"stages": [...]} (and "input"/"classes" where given, which must agree with `shape`). Every stage is an object
/// with one key, its kind: {"conv": {"out": 32, "kernel": 5}}. "out": "classes" stands for shape.classes. The last stage
/// must give [classes]. Throws ConfigError with the path of the stage, the shape that reached it and what it needs.
Architecture parse_architecture(const nlohmann::json& spec, const ExampleShape& shape, const std::string& path);

/// Fills `weights` (layout size) from the keyed generator: the same bits for the same seed, on every LibTorch version.
void initialise(const Architecture& architecture, std::uint64_t seed, std::span<float> weights);

}  // namespace fl
