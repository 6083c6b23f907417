#include "fl_core/ml/architecture.h"

#include <cmath>
#include <initializer_list>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/config/fields.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

using nlohmann::json;
using Shape = std::vector<std::int64_t>;

constexpr std::int64_t kExtent = 1 << 24;                     ///< channels, features, vocabulary
constexpr std::int64_t kKernel = 1024;                        ///< kernel, stride, padding
constexpr std::int64_t kElements = std::int64_t{1} << 31;     ///< floats in one tensor
constexpr std::size_t kStages = 4096;                         ///< stages in one list
constexpr std::size_t kFirstStatistic = std::size_t{1} << 40; ///< marks slot indices that are still among the statistics

std::string text(const Shape& shape) {
  std::string list;
  for (const std::int64_t extent : shape) list += (list.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + list + "]";
}

/// Products and sums stop at the largest int64: a cost that large is only ever shown.
std::int64_t product(std::initializer_list<std::int64_t> factors) {
  std::int64_t result = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(result, factor, &result)) return std::numeric_limits<std::int64_t>::max();
  }
  return result;
}

std::int64_t product(const Shape& shape) {
  std::int64_t result = 1;
  for (const std::int64_t extent : shape) result = product({result, extent});
  return result;
}

std::int64_t sum(std::int64_t a, std::int64_t b) {
  std::int64_t result = 0;
  return __builtin_add_overflow(a, b, &result) ? std::numeric_limits<std::int64_t>::max() : result;
}

/// Where a stage stands: its options, their JSON path, the prefix of its slots, and what reaches it.
struct Site {
  std::string kind;
  const json& options;
  std::string path;
  std::string slot;
  const Shape& input;
};

[[noreturn]] void unfit(const Site& site, const std::string& need, const std::string& fix) {
  throw ConfigError(site.path + ": " + site.kind + " needs " + need + ", got " + text(site.input) + "; " + fix);
}

void require(const Site& site, const char* key, std::int64_t value) {
  if (value == 0) throw ConfigError(join_path(site.path, key) + ": missing; expected an integer of at least 1");
}

void require_image(const Site& site) {
  if (site.input.size() == 3) return;
  unfit(site, "an image [channels, height, width]",
        site.input.size() == 1 ? "put it before flatten and linear, or use linear" : "use a data set of images");
}

/// Height and width after a window slides over them.
Shape windowed(const Site& site, std::int64_t channels, std::int64_t kernel, std::int64_t stride, std::int64_t padding) {
  Shape output = {channels};
  for (std::size_t axis = 1; axis < 3; ++axis) {
    const std::int64_t extent = site.input[axis] + 2 * padding;
    if (extent < kernel) {
      unfit(site, "height and width of at least kernel - 2 padding = " + std::to_string(kernel - 2 * padding),
            "make the kernel smaller or add padding");
    }
    output.push_back((extent - kernel) / stride + 1);
  }
  return output;
}

Initialisation uniform(std::int64_t fan_in) {
  return {Initialisation::Kind::uniform, 1.0 / std::sqrt(static_cast<double>(fan_in))};
}
Initialisation constant(double value) { return {Initialisation::Kind::constant, value}; }

/// Walks the stages, passing shapes on and collecting slots.
class Parser {
 public:
  explicit Parser(const ExampleShape& shape) : example_(shape), tokens_(shape.vocabulary > 0) {
    keep(product(shape.input), 4);
  }

  std::vector<StageSpec> list(const json& stages, const std::string& path, const std::string& slot, Shape input);
  void finish(Architecture& architecture);

 private:
  StageSpec stage(const Site& site);
  StageSpec conv(const Site& site);
  StageSpec depthwise_conv(const Site& site);
  StageSpec linear(const Site& site);
  StageSpec activation(const Site& site);
  StageSpec pool(const Site& site);
  StageSpec global_avg_pool(const Site& site);
  StageSpec flatten(const Site& site);
  StageSpec dropout(const Site& site);
  StageSpec group_norm(const Site& site);
  StageSpec batch_norm(const Site& site);
  StageSpec embedding(const Site& site);
  StageSpec lstm(const Site& site);
  StageSpec residual(const Site& site);

  using Handler = StageSpec (Parser::*)(const Site&);
  static const std::map<std::string, Handler>& handlers();

  StageSpec convolution(const Site& site, StageSpec::Conv conv);
  void weight(StageSpec& stage, const Site& site, const char* name, Shape shape, Initialisation initial);
  void statistic(StageSpec& stage, const Site& site, const char* name, Shape shape, Initialisation initial);
  void check_size(const Site& site, const std::string& what, const Shape& shape) const;
  /// Counts memory that backward keeps for one example.
  void keep(std::int64_t elements, std::int64_t bytes_each) {
    activation_bytes_ = sum(activation_bytes_, product({elements, bytes_each}));
  }

  const ExampleShape& example_;
  bool tokens_;  ///< what flows now are token ids, not numbers
  std::vector<Slot> weights_, statistics_;
  std::vector<Initialisation> initial_weights_, initial_statistics_;
  std::int64_t activation_bytes_ = 0;
};

const std::map<std::string, Parser::Handler>& Parser::handlers() {
  static const std::map<std::string, Handler> all = {
      {"conv", &Parser::conv},
      {"depthwise_conv", &Parser::depthwise_conv},
      {"linear", &Parser::linear},
      {"relu", &Parser::activation},
      {"relu6", &Parser::activation},
      {"gelu", &Parser::activation},
      {"tanh", &Parser::activation},
      {"max_pool", &Parser::pool},
      {"avg_pool", &Parser::pool},
      {"global_avg_pool", &Parser::global_avg_pool},
      {"flatten", &Parser::flatten},
      {"dropout", &Parser::dropout},
      {"group_norm", &Parser::group_norm},
      {"batch_norm", &Parser::batch_norm},
      {"embedding", &Parser::embedding},
      {"lstm", &Parser::lstm},
      {"residual", &Parser::residual},
  };
  return all;
}

std::vector<StageSpec> Parser::list(const json& stages, const std::string& path, const std::string& slot, Shape input) {
  if (!stages.is_array() || stages.empty()) bad_value(path, stages, "a list of stages [{\"linear\": {\"out\": \"classes\"}}, …]");
  if (stages.size() > kStages) throw ConfigError(path + ": " + std::to_string(stages.size()) + " stages, at most 4096 are allowed");
  std::vector<StageSpec> parsed;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    const json& one = stages[i];
    const std::string number = std::to_string(i);
    const std::string place = join_path(path, number);
    if (!one.is_object() || one.size() != 1) bad_value(place, one, "an object with one key, the kind: {\"relu\": {}}");
    const std::string kind = one.begin().key();
    parsed.push_back(stage({kind, one.begin().value(), join_path(place, kind), slot + number + "." + kind, input}));
    input = parsed.back().output;
  }
  return parsed;
}

StageSpec Parser::stage(const Site& site) {
  const auto handler = handlers().find(site.kind);
  if (handler == handlers().end()) {
    std::vector<std::string> names;
    for (const auto& [name, unused] : handlers()) names.push_back(name);
    throw ConfigError(site.path + ": there is no stage '" + site.kind + "'" + nearest_hint(site.kind, names));
  }
  if (tokens_ && site.kind != "embedding") {
    unfit(site, "numbers, but the data's features are token ids", "put {\"embedding\": {\"dimension\": 8}} before it");
  }
  StageSpec parsed = (this->*handler->second)(site);
  check_size(site, "an output", parsed.output);
  const bool is_view = std::holds_alternative<StageSpec::Flatten>(parsed.kind);
  if (!is_view) keep(product(parsed.output), 4);
  return parsed;
}

void Parser::check_size(const Site& site, const std::string& what, const Shape& shape) const {
  if (product(shape) > kElements) throw ConfigError(site.path + ": " + what + " of shape " + text(shape) + " has more than 2^31 floats");
}

void Parser::weight(StageSpec& stage, const Site& site, const char* name, Shape shape, Initialisation initial) {
  check_size(site, name, shape);
  stage.slots.push_back(weights_.size());
  weights_.push_back({site.slot + "." + name, std::move(shape)});
  initial_weights_.push_back(initial);
}

void Parser::statistic(StageSpec& stage, const Site& site, const char* name, Shape shape, Initialisation initial) {
  stage.slots.push_back(kFirstStatistic + statistics_.size());
  statistics_.push_back({site.slot + "." + name, std::move(shape), SlotKind::statistic});
  initial_statistics_.push_back(initial);
}

StageSpec Parser::convolution(const Site& site, StageSpec::Conv conv) {
  StageSpec stage;
  stage.kind = conv;
  stage.output = windowed(site, conv.out, conv.kernel, conv.stride, conv.padding);
  const std::int64_t fan_in = product({conv.in / conv.groups, conv.kernel, conv.kernel});
  weight(stage, site, "weight", {conv.out, conv.in / conv.groups, conv.kernel, conv.kernel}, uniform(fan_in));
  if (conv.bias) weight(stage, site, "bias", {conv.out}, uniform(fan_in));
  stage.flops = product({2, product(stage.output), fan_in});
  return stage;
}

StageSpec Parser::conv(const Site& site) {
  require_image(site);
  StageSpec::Conv conv{site.input[0], 0, 0, 1, 0, 1, true};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.integer("out", conv.out, {1, kExtent}, "output channels");
    f.integer("kernel", conv.kernel, {1, kKernel}, "height and width of the kernel");
    f.integer("stride", conv.stride, {1, kKernel}, "step of the kernel");
    f.integer("padding", conv.padding, {0, kKernel}, "zeros added on each side");
    f.integer("groups", conv.groups, {1, kExtent}, "groups of channels convolved apart");
    f.flag("bias", conv.bias, "add a number to each channel");
  });
  require(site, "out", conv.out);
  require(site, "kernel", conv.kernel);
  if (conv.in % conv.groups != 0 || conv.out % conv.groups != 0) {
    throw ConfigError(join_path(site.path, "groups") + ": got " + std::to_string(conv.groups) + ", expected a divisor of " +
                      std::to_string(conv.in) + " input and " + std::to_string(conv.out) + " output channels");
  }
  return convolution(site, conv);
}

StageSpec Parser::depthwise_conv(const Site& site) {
  require_image(site);
  const std::int64_t channels = site.input[0];
  StageSpec::Conv conv{channels, channels, 0, 1, 0, channels, true};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.integer("kernel", conv.kernel, {1, kKernel}, "height and width of the kernel");
    f.integer("stride", conv.stride, {1, kKernel}, "step of the kernel");
    f.integer("padding", conv.padding, {0, kKernel}, "zeros added on each side");
    f.flag("bias", conv.bias, "add a number to each channel");
  });
  require(site, "kernel", conv.kernel);
  return convolution(site, conv);
}

StageSpec Parser::linear(const Site& site) {
  if (site.input.size() != 1) unfit(site, "a flat input [n]", "put {\"flatten\": {}} before it");
  StageSpec::Linear linear{site.input[0], 0, true};
  json out;
  read_fields(site.options, site.path, [&](Fields& f) {
    f.raw("out", out, "an integer of at least 1, or \"classes\"", "output features");
    f.flag("bias", linear.bias, "add a number to each output");
  });
  const std::string path = join_path(site.path, "out");
  if (out.is_null()) throw ConfigError(path + ": missing; expected an integer of at least 1, or \"classes\"");
  if (out == "classes") {
    linear.out = example_.classes;
  } else if (out.is_number_integer() && out >= 1 && out <= kExtent) {
    linear.out = out.get<std::int64_t>();
  } else {
    bad_value(path, out, "an integer from 1 to " + std::to_string(kExtent) + ", or \"classes\"");
  }
  StageSpec stage;
  stage.kind = linear;
  stage.output = {linear.out};
  weight(stage, site, "weight", {linear.out, linear.in}, uniform(linear.in));
  if (linear.bias) weight(stage, site, "bias", {linear.out}, uniform(linear.in));
  stage.flops = product({2, linear.in, linear.out});
  return stage;
}

StageSpec Parser::activation(const Site& site) {
  using Kind = StageSpec::Activation::Kind;
  static const std::map<std::string, Kind> kinds = {
      {"relu", Kind::relu}, {"relu6", Kind::relu6}, {"gelu", Kind::gelu}, {"tanh", Kind::tanh}};
  read_fields(site.options, site.path, [](Fields&) {});
  return {StageSpec::Activation{kinds.at(site.kind)}, {}, site.input, product(site.input)};
}

StageSpec Parser::pool(const Site& site) {
  require_image(site);
  StageSpec::Pool pool{site.kind == "max_pool", 0, 0, 0, false};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.integer("kernel", pool.kernel, {1, kKernel}, "height and width of the window");
    f.integer("stride", pool.stride, {1, kKernel}, "step of the window; the kernel when absent");
    f.integer("padding", pool.padding, {0, kKernel}, "rim added on each side");
  });
  require(site, "kernel", pool.kernel);
  if (pool.stride == 0) pool.stride = pool.kernel;
  if (pool.padding > pool.kernel / 2) {
    throw ConfigError(join_path(site.path, "padding") + ": got " + std::to_string(pool.padding) +
                      ", expected at most half the kernel of " + std::to_string(pool.kernel));
  }
  StageSpec stage;
  stage.kind = pool;
  stage.output = windowed(site, site.input[0], pool.kernel, pool.stride, pool.padding);
  stage.flops = product({product(stage.output), pool.kernel, pool.kernel});
  if (pool.max) keep(product(stage.output), 8);
  return stage;
}

StageSpec Parser::global_avg_pool(const Site& site) {
  require_image(site);
  read_fields(site.options, site.path, [](Fields&) {});
  return {StageSpec::Pool{false, 0, 0, 0, true}, {}, {site.input[0]}, product(site.input)};
}

StageSpec Parser::flatten(const Site& site) {
  read_fields(site.options, site.path, [](Fields&) {});
  return {StageSpec::Flatten{}, {}, {product(site.input)}, 0};
}

StageSpec Parser::dropout(const Site& site) {
  double probability = 0.5;
  read_fields(site.options, site.path, [&](Fields& f) {
    f.number("probability", probability, {0, 0.99}, "chance that an element becomes zero in training");
  });
  keep(product(site.input), 4);
  return {StageSpec::Dropout{probability}, {}, site.input, product(site.input)};
}

StageSpec Parser::group_norm(const Site& site) {
  if (site.input.size() == 2) unfit(site, "[channels] or [channels, height, width]", "leave it out of sequences");
  StageSpec::GroupNorm norm{0, site.input[0], 1e-5};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.integer("groups", norm.groups, {1, kExtent}, "groups of channels normalised together");
    f.number("epsilon", norm.epsilon, {0, 1, true}, "added to the variance");
  });
  require(site, "groups", norm.groups);
  if (norm.channels % norm.groups != 0) {
    throw ConfigError(join_path(site.path, "groups") + ": got " + std::to_string(norm.groups) + ", expected a divisor of the " +
                      std::to_string(norm.channels) + " channels of " + text(site.input));
  }
  StageSpec stage{norm, {}, site.input, product({4, product(site.input)})};
  weight(stage, site, "weight", {norm.channels}, constant(1));
  weight(stage, site, "bias", {norm.channels}, constant(0));
  return stage;
}

StageSpec Parser::batch_norm(const Site& site) {
  if (site.input.size() == 2) unfit(site, "[channels] or [channels, height, width]", "leave it out of sequences");
  StageSpec::BatchNorm norm{site.input[0], 0.1, 1e-5};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.number("momentum", norm.momentum, {0, 1}, "weight of a new batch in the running statistics");
    f.number("epsilon", norm.epsilon, {0, 1, true}, "added to the variance");
  });
  StageSpec stage{norm, {}, site.input, product({4, product(site.input)})};
  weight(stage, site, "weight", {norm.channels}, constant(1));
  weight(stage, site, "bias", {norm.channels}, constant(0));
  statistic(stage, site, "running_mean", {norm.channels}, constant(0));
  statistic(stage, site, "running_var", {norm.channels}, constant(1));
  return stage;
}

StageSpec Parser::embedding(const Site& site) {
  if (!tokens_) unfit(site, "token ids", "it must be the first stage, on a data set of tokens");
  StageSpec::Embedding embedding{example_.vocabulary, 0};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.integer("vocabulary", embedding.vocabulary, {1, kExtent}, "number of different tokens; the data's when absent");
    f.integer("dimension", embedding.dimension, {1, kExtent}, "numbers that stand for one token");
  });
  require(site, "dimension", embedding.dimension);
  if (embedding.vocabulary < example_.vocabulary) {
    throw ConfigError(join_path(site.path, "vocabulary") + ": got " + std::to_string(embedding.vocabulary) +
                      ", expected at least the data's " + std::to_string(example_.vocabulary));
  }
  tokens_ = false;
  StageSpec stage;
  stage.kind = embedding;
  stage.output = site.input;
  stage.output.push_back(embedding.dimension);
  weight(stage, site, "weight", {embedding.vocabulary, embedding.dimension}, {Initialisation::Kind::normal, 1});
  keep(product(site.input), 8);
  return stage;
}

StageSpec Parser::lstm(const Site& site) {
  if (site.input.size() != 2) unfit(site, "a sequence [time, features]", "put it after an embedding, or use data of that shape");
  StageSpec::Lstm lstm{site.input[1], 0, 1, false};
  read_fields(site.options, site.path, [&](Fields& f) {
    f.integer("hidden", lstm.hidden, {1, kExtent}, "size of the state");
    f.integer("layers", lstm.layers, {1, 64}, "layers on top of each other");
    f.flag("whole_sequence", lstm.whole_sequence, "give every step's state, not only the last");
  });
  require(site, "hidden", lstm.hidden);
  StageSpec stage;
  stage.kind = lstm;
  const std::int64_t time = site.input[0];
  stage.output = lstm.whole_sequence ? Shape{time, lstm.hidden} : Shape{lstm.hidden};
  const std::int64_t gates = 4 * lstm.hidden;
  for (std::int64_t layer = 0; layer < lstm.layers; ++layer) {
    const std::int64_t features = layer == 0 ? lstm.features : lstm.hidden;
    const std::string suffix = "_l" + std::to_string(layer);
    weight(stage, site, ("weight_ih" + suffix).c_str(), {gates, features}, uniform(lstm.hidden));
    weight(stage, site, ("weight_hh" + suffix).c_str(), {gates, lstm.hidden}, uniform(lstm.hidden));
    weight(stage, site, ("bias_ih" + suffix).c_str(), {gates}, uniform(lstm.hidden));
    weight(stage, site, ("bias_hh" + suffix).c_str(), {gates}, uniform(lstm.hidden));
    stage.flops = sum(stage.flops, product({2, time, gates, features + lstm.hidden}));
    keep(product({time, gates + 2 * lstm.hidden}), 4);
  }
  return stage;
}

StageSpec Parser::residual(const Site& site) {
  json body = json::array(), shortcut = json::array();
  read_fields(site.options, site.path, [&](Fields& f) {
    f.raw("body", body, "a list of stages", "the long way");
    f.raw("shortcut", shortcut, "a list of stages, or [] for the identity", "the short way");
  });
  StageSpec::Residual residual;
  residual.body = list(body, join_path(site.path, "body"), site.slot + ".body.", site.input);
  const bool identity = shortcut.is_array() && shortcut.empty();
  if (!identity) residual.shortcut = list(shortcut, join_path(site.path, "shortcut"), site.slot + ".shortcut.", site.input);
  StageSpec stage;
  stage.output = residual.body.back().output;
  const Shape& other = identity ? site.input : residual.shortcut.back().output;
  if (other != stage.output) {
    throw ConfigError(site.path + ": the body gives " + text(stage.output) + " but the shortcut gives " + text(other) +
                      "; both must have one shape (a 1x1 conv in \"shortcut\" changes channels and stride)");
  }
  stage.flops = product(stage.output);
  for (const StageSpec& one : residual.body) stage.flops = sum(stage.flops, one.flops);
  for (const StageSpec& one : residual.shortcut) stage.flops = sum(stage.flops, one.flops);
  stage.kind = std::move(residual);
  return stage;
}

void place_statistics(std::vector<StageSpec>& stages, std::size_t weights) {
  for (StageSpec& stage : stages) {
    for (std::size_t& slot : stage.slots) {
      if (slot >= kFirstStatistic) slot = slot - kFirstStatistic + weights;
    }
    if (auto* residual = std::get_if<StageSpec::Residual>(&stage.kind)) {
      place_statistics(residual->body, weights);
      place_statistics(residual->shortcut, weights);
    }
  }
}

void Parser::finish(Architecture& architecture) {
  place_statistics(architecture.stages, weights_.size());
  weights_.insert(weights_.end(), statistics_.begin(), statistics_.end());
  architecture.initial = std::move(initial_weights_);
  architecture.initial.insert(architecture.initial.end(), initial_statistics_.begin(), initial_statistics_.end());
  architecture.layout = std::make_shared<const Layout>(std::move(weights_));
  ModelCost& cost = architecture.cost;
  cost.parameters = static_cast<std::int64_t>(architecture.layout->weight_count());
  for (const StageSpec& stage : architecture.stages) cost.forward_flops = sum(cost.forward_flops, stage.flops);
  cost.training_flops = product({3, cost.forward_flops});
  cost.activation_bytes = activation_bytes_;
}

}  // namespace

Architecture parse_architecture(const json& spec, const ExampleShape& shape, const std::string& path) {
  json stages;
  std::string summary;
  Shape input = shape.input;
  std::optional<std::int64_t> classes = shape.classes;
  read_fields(spec, path, [&](Fields& f) {
    f.text("summary", summary, "what this network is");
    f.integers("input", input, 0, {1, kExtent}, "shape of one example; the data's when absent");
    f.optional_integer("classes", classes, {1, kExtent}, "number of classes; the data's when absent");
    f.raw("stages", stages, "a list of stages", "what happens to an example, in order");
  });
  if (input != shape.input && !input.empty()) bad_value(join_path(path, "input"), input, text(shape.input) + ", the shape of the data's examples");
  if (classes && *classes != shape.classes) {
    bad_value(join_path(path, "classes"), *classes, std::to_string(shape.classes) + ", the number of classes in the data");
  }
  const std::string stages_path = join_path(path, "stages");
  Architecture architecture;
  architecture.shape = shape;
  Parser parser(architecture.shape);
  architecture.stages = parser.list(stages, stages_path, "", shape.input);
  const Shape& last = architecture.stages.back().output;
  if (last != Shape{shape.classes}) {
    throw ConfigError(join_path(stages_path, std::to_string(architecture.stages.size() - 1)) + ": the last stage gives " + text(last) +
                      ", expected " + text({shape.classes}) + ", one number a class; end with {\"linear\": {\"out\": \"classes\"}}");
  }
  parser.finish(architecture);
  return architecture;
}

void initialise(const Architecture& architecture, std::uint64_t seed, std::span<float> weights) {
  const std::vector<Slot>& slots = architecture.layout->slots();
  FL_CHECK(weights.size() == architecture.layout->size(), "initialise: the array does not fit the layout");
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const Initialisation& initial = architecture.initial[i];
    Rng rng(seed, Purpose::model_init, i);
    for (float& value : weights.subspan(slots[i].offset, slots[i].size)) {
      switch (initial.kind) {
        case Initialisation::Kind::uniform: value = static_cast<float>((2 * rng.uniform() - 1) * initial.bound); break;
        case Initialisation::Kind::normal: value = static_cast<float>(rng.normal() * initial.bound); break;
        case Initialisation::Kind::constant: value = static_cast<float>(initial.bound); break;
      }
    }
  }
}

}  // namespace fl
