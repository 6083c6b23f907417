#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/fields.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/architecture_parser.h"

namespace fl::architecture {
namespace {

using nlohmann::json;

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

}  // namespace

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

}  // namespace fl::architecture
