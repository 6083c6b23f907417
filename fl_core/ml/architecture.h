#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
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
  /// [in, height, width] -> [out, …]; square kernel; weight [out, in / groups, kernel, kernel], then bias [out].
  struct Conv { std::int64_t in, out, kernel, stride, padding, groups; bool bias; };
  /// [in] -> [out]; weight [out, in], then bias [out].
  struct Linear { std::int64_t in, out; bool bias; };
  struct Activation { enum class Kind : std::uint8_t { relu, relu6, gelu, tanh } kind; };
  /// `global` averages every channel to one number: [channels, height, width] -> [channels]; its other fields are unused.
  struct Pool { bool max; std::int64_t kernel, stride, padding; bool global; };
  struct Flatten {};
  struct Dropout { double probability; };
  struct GroupNorm { std::int64_t groups, channels; double epsilon; };
  /// Weight and bias, then the statistic slots running_mean and running_var. Biased variance normalises, unbiased is kept.
  struct BatchNorm { std::int64_t channels; double momentum, epsilon; };
  /// Token ids [time] -> [time, dimension]. Only ever the first stage.
  struct Embedding { std::int64_t vocabulary, dimension; };
  /// Input [time, features] -> output [hidden] (last step) or [time, hidden]. Slots for each layer: weight_ih
  /// [4 hidden, features], weight_hh [4 hidden, hidden], bias_ih, bias_hh; gates in PyTorch's order i, f, g, o.
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

/// Parses {"stages": [...]} (and "input"/"classes" where given, which must agree with `shape`; "summary" is for readers).
/// Every stage is an object with one key, its kind: {"conv": {"out": 32, "kernel": 5}}. The kinds and their keys:
///   conv            out, kernel, stride = 1, padding = 0, groups = 1, bias = true
///   depthwise_conv  kernel, stride = 1, padding = 0, bias = true       one filter a channel
///   linear          out (a number or "classes"), bias = true
///   relu, relu6, gelu, tanh, flatten, global_avg_pool                  no keys; global_avg_pool gives [channels]
///   max_pool, avg_pool  kernel, stride = kernel, padding = 0
///   dropout         probability
///   group_norm      groups, epsilon = 1e-5
///   batch_norm      momentum = 0.1, epsilon = 1e-5                     has statistic slots
///   embedding       dimension, vocabulary = the data's
///   lstm            hidden, layers = 1, whole_sequence = false
///   residual        body: [stages], shortcut: [stages] = []            body(x) + shortcut(x)
/// The last stage must give [classes]. Slots are named by place and kind ("0.conv.weight",
/// "4.residual.body.1.conv.weight"). Throws ConfigError with the path of the stage, the shape that reached it and what it
/// needs.
///
/// ModelCost of an architecture: FLOPs are 2 for each multiply-add of conv, linear and lstm, 1 for each element of an
/// activation, dropout or addition, kernel² for each pooled element and 4 for each normalised one; training is three
/// times forward. Activation bytes are the input, every stage's output (flatten is a view), max_pool's indices, dropout's
/// mask and the lstm's gates: an upper bound, since executors work in place where they can.
Architecture parse_architecture(const nlohmann::json& spec, const ExampleShape& shape, const std::string& path);

/// Fills `weights` (layout size) from the keyed generator, slot by slot with Rng(seed, model_init, slot index): the same
/// bits for the same seed, on every LibTorch version. The distributions are PyTorch's defaults: U(±1/√fan_in) for conv and
/// linear weights and biases, U(±1/√hidden) for lstm, N(0, 1) for embedding, 1 and 0 for norms.
void initialise(const Architecture& architecture, std::uint64_t seed, std::span<float> weights);

}  // namespace fl
