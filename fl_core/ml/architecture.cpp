#include "fl_core/ml/architecture.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/config/fields.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/architecture_parser.h"

namespace fl {
namespace architecture {

using nlohmann::json;

std::string text(const Shape& shape) {
  std::string list;
  for (const std::int64_t extent : shape) list += (list.empty() ? "" : ", ") + std::to_string(extent);
  return "[" + list + "]";
}

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

[[noreturn]] void unfit(const Site& site, const std::string& need, const std::string& fix) {
  throw ConfigError(site.path + ": " + site.kind + " needs " + need + ", got " + text(site.input) + "; " + fix);
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

namespace {

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

}  // namespace

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

}  // namespace architecture

Architecture parse_architecture(const nlohmann::json& spec, const ExampleShape& shape, const std::string& path) {
  using architecture::kExtent;
  using architecture::Shape;
  using architecture::text;
  nlohmann::json stages;
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
  Architecture parsed;
  parsed.shape = shape;
  architecture::Parser parser(parsed.shape);
  parsed.stages = parser.list(stages, stages_path, "", shape.input);
  const Shape& last = parsed.stages.back().output;
  if (last != Shape{shape.classes}) {
    throw ConfigError(join_path(stages_path, std::to_string(parsed.stages.size() - 1)) + ": the last stage gives " + text(last) +
                      ", expected " + text({shape.classes}) + ", one number a class; end with {\"linear\": {\"out\": \"classes\"}}");
  }
  parser.finish(parsed);
  return parsed;
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
