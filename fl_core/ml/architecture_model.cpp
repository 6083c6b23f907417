#include "fl_core/ml/architecture_model.h"

#include <array>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <type_traits>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/dense_network.h"
#include "fl_core/ml/ghost_network.h"
#include "fl_core/ml/torch_accelerator.h"
#include "fl_core/ml/torch_max_pool.h"
#include "fl_core/ml/torch_model.h"

namespace fl {
namespace {

using torch::Tensor;
using Operation = std::function<Tensor(Tensor, ForwardContext&)>;
using Operations = std::vector<Operation>;

Tensor run(const Operations& operations, Tensor x, ForwardContext& context) {
  for (const Operation& operation : operations) x = operation(std::move(x), context);
  return x;
}

/// Linear stages in a row, each with or without a ReLU: one node for autograd. Its backward writes the gradients straight
/// to where they must end; autograd would take one node an operation, and a fresh tensor and a copy for each gradient.
struct DenseRun {
  struct Layer {
    Tensor weight, bias;                    ///< [out, in], [out]; bias may be undefined
    Tensor weight_gradient, bias_gradient;  ///< views into the flat gradient
    bool relu = false;
  };
  std::vector<Layer> layers;
};

class DenseRunBackward final : public torch::autograd::Node {
 public:
  explicit DenseRunBackward(std::shared_ptr<const DenseRun> run) : run_(std::move(run)) {}

  /// activations[i] is what layer i got, activations[i + 1] what it gave. None of them holds on to this node.
  std::vector<Tensor> activations;

  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    Tensor flowing = std::move(gradients[0]);
    FL_CHECK(flowing.defined() && activations.size() == run_->layers.size() + 1, "a dense run's backward without its forward");
    for (std::size_t i = run_->layers.size(); i-- > 0;) {
      const DenseRun::Layer& layer = run_->layers[i];
      if (layer.relu) flowing = at::threshold_backward(flowing, activations[i + 1], 0);
      Tensor weight_gradient = layer.weight_gradient, bias_gradient = layer.bias_gradient;
      at::mm_out(weight_gradient, flowing.t(), activations[i]);
      if (bias_gradient.defined()) at::sum_out(bias_gradient, flowing, {0});
      if (i > 0 || task_should_compute_output(0)) flowing = at::mm(flowing, layer.weight);
    }
    if (!task_should_compute_output(0)) return {Tensor()};
    return {flowing};
  }
  void release_variables() override { activations.clear(); }

 private:
  std::shared_ptr<const DenseRun> run_;
};

/// LibTorch 1 and the first of 2 share nodes by shared_ptr, later ones by an intrusive pointer of their own: `Pointer` is what edges hold. All
/// is a parameter here, so that only the branch which this LibTorch has is compiled.
template <class Pointer, class Node = DenseRunBackward>
auto make_node(const std::shared_ptr<const DenseRun>& run) {
  if constexpr (std::is_same_v<Pointer, std::shared_ptr<torch::autograd::Node>>) {
    return std::shared_ptr<Node>(new Node(run), [](auto* last) { deleteNode(last); });
  } else {
    return c10::make_intrusive<Node>(run);
  }
}

Tensor forward_dense(const std::shared_ptr<const DenseRun>& run, const Tensor& x) {
  const bool recording = torch::GradMode::is_enabled();
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> activations;
  Tensor y = x;
  for (const DenseRun::Layer& layer : run->layers) {
    if (recording) activations.push_back(y.detach());
    y = layer.bias.defined() ? at::addmm(layer.bias, y, layer.weight.t()) : at::mm(y, layer.weight.t());
    if (layer.relu) at::relu_(y);
  }
  if (!recording) return y;
  activations.push_back(y.detach());
  const auto node = make_node<decltype(torch::autograd::Edge::function)>(run);
  node->activations = std::move(activations);
  // collect_next_edges() gives nothing to follow unless recording is on.
  const torch::AutoGradMode on(true);
  node->set_next_edges(torch::autograd::collect_next_edges(x));
  torch::autograd::create_gradient_edge(y, node);
  return y;
}

Tensor batch_norm(const Tensor& x, const StageSpec::BatchNorm& norm, const std::vector<Tensor>& slots, bool training) {
  // One value a channel has no variance: LibTorch would write NaN into the running variance, which is left as it is.
  const bool update = x.numel() > norm.channels;
  if (training && !update) {
    return at::batch_norm(x, slots[0], slots[1], {}, {}, true, norm.momentum, norm.epsilon, false);
  }
  return at::batch_norm(x, slots[0], slots[1], slots[2], slots[3], training, norm.momentum, norm.epsilon, false);
}

Tensor lstm(const Tensor& x, const StageSpec::Lstm& spec, const std::vector<Tensor>& slots, bool training) {
  const Tensor start = torch::zeros({spec.layers, x.size(0), spec.hidden}, x.options());
  const Tensor states = std::get<0>(at::lstm(x, {start, start}, slots, true, spec.layers, 0.0, training, false, true));
  return spec.whole_sequence ? states : states.select(1, states.size(1) - 1);
}

Operation pool(const StageSpec::Pool& spec) {
  if (spec.global) return [](Tensor x, ForwardContext&) { return at::mean(x, {2, 3}); };
  const std::array<std::int64_t, 2> kernel{spec.kernel, spec.kernel}, stride{spec.stride, spec.stride},
      padding{spec.padding, spec.padding};
  if (spec.max) return [=](Tensor x, ForwardContext&) { return max_pool(x, spec.kernel, spec.stride, spec.padding); };
  return [=](Tensor x, ForwardContext&) { return at::avg_pool2d(x, kernel, stride, padding); };
}

Operation activation(StageSpec::Activation::Kind kind, bool in_place) {
  using Kind = StageSpec::Activation::Kind;
  switch (kind) {
    case Kind::relu:
      if (in_place) return [](Tensor x, ForwardContext&) { return at::relu_(x); };
      return [](Tensor x, ForwardContext&) { return at::relu(x); };
    case Kind::relu6: return [](Tensor x, ForwardContext&) { return at::hardtanh(x, 0, 6); };
    case Kind::gelu: return [](Tensor x, ForwardContext&) { return at::gelu(x); };
    case Kind::tanh: return [](Tensor x, ForwardContext&) { return at::tanh(x); };
  }
  FL_CHECK(false, "an activation that nobody runs");
}

template <class... Cases>
struct Overload : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overload(Cases...) -> Overload<Cases...>;

class ArchitectureModel final : public TorchModel {
 public:
  ArchitectureModel(std::shared_ptr<const Architecture> architecture, std::uint64_t seed, std::shared_ptr<TorchAccelerator> accelerator)
      : TorchModel(architecture->layout, architecture->shape, "spec", std::move(accelerator)), architecture_(std::move(architecture)) {
    initialise(*architecture_, seed, weights());
    operations_ = build(architecture_->stages);
    if (resident() == nullptr) dense_ = DenseNetwork::of(*architecture_);
  }

  double backward(const Batch& batch, Rng& rng) override {
    return dense_ ? dense_->backward(batch, weights(), whole_gradient()) : TorchModel::backward(batch, rng);
  }
  std::size_t clipped_backward(const Batch& batch, double clip_norm, Rng& rng) override;

 private:
  Tensor forward(Tensor inputs, ForwardContext& context) override { return run(operations_, std::move(inputs), context); }

  Operations build(const std::vector<StageSpec>& stages);
  Operation build(const StageSpec& stage, const StageSpec* before);
  Operation dense_run(const std::vector<StageSpec>& stages, std::size_t& next);
  std::vector<Tensor> parameters(const StageSpec& stage);

  std::shared_ptr<const Architecture> architecture_;
  Operations operations_;
  std::optional<DenseNetwork> dense_;         ///< trains in place of the operations where the network is small enough
  std::optional<ghost::Network> by_example_;  ///< made when it is first needed
};

std::size_t ArchitectureModel::clipped_backward(const Batch& batch, double clip_norm, Rng& rng) {
  FL_CHECK(!batch.labels.empty(), "clipped_backward on an empty batch");
  FL_CHECK(resident() == nullptr, "clipped_backward runs on the processor only");
  if (!by_example_) {
    by_example_.emplace(*architecture_, ghost::SlotViews{[this](std::size_t slot) { return weight_view(slot); },
                                                         [this](std::size_t slot) { return gradient_view(slot); }});
  }
  ForwardContext context{true, rng};
  return by_example_->clipped_backward(inputs_of(batch), batch.labels, clip_norm, context);
}

/// The stage's slots as tensors: weights record gradients, statistics do not.
std::vector<Tensor> ArchitectureModel::parameters(const StageSpec& stage) {
  std::vector<Tensor> tensors;
  for (const std::size_t slot : stage.slots) {
    tensors.push_back(weight_view(slot));
    if (layout()->slots()[slot].kind == SlotKind::statistic) continue;
    tensors.back().requires_grad_();
    collect_from(slot, tensors.back());
  }
  return tensors;
}

Operations ArchitectureModel::build(const std::vector<StageSpec>& stages) {
  Operations operations;
  for (std::size_t next = 0; next < stages.size();) {
    if (std::holds_alternative<StageSpec::Linear>(stages[next].kind)) {
      operations.push_back(dense_run(stages, next));
    } else {
      operations.push_back(build(stages[next], next == 0 ? nullptr : &stages[next - 1]));
      ++next;
    }
  }
  return operations;
}

Operation ArchitectureModel::dense_run(const std::vector<StageSpec>& stages, std::size_t& next) {
  auto dense = std::make_shared<DenseRun>();
  for (; next < stages.size(); ++next) {
    const StageSpec& stage = stages[next];
    if (std::holds_alternative<StageSpec::Linear>(stage.kind)) {
      DenseRun::Layer layer{weight_view(stage.slots[0]), {}, gradient_view(stage.slots[0]), {}, false};
      if (stage.slots.size() == 2) {
        layer.bias = weight_view(stage.slots[1]);
        layer.bias_gradient = gradient_view(stage.slots[1]);
      }
      dense->layers.push_back(std::move(layer));
      continue;
    }
    const auto* activation = std::get_if<StageSpec::Activation>(&stage.kind);
    const bool is_relu = activation != nullptr && activation->kind == StageSpec::Activation::Kind::relu;
    if (!is_relu || dense->layers.back().relu) break;
    dense->layers.back().relu = true;
  }
  return [dense = std::shared_ptr<const DenseRun>(std::move(dense))](Tensor x, ForwardContext&) {
    return forward_dense(dense, x);
  };
}

/// Whether a stage's output is its own and autograd does not need it, so that a ReLU may overwrite it.
bool may_overwrite(const StageSpec* before) {
  return before != nullptr &&
         (std::holds_alternative<StageSpec::Conv>(before->kind) || std::holds_alternative<StageSpec::GroupNorm>(before->kind) ||
          std::holds_alternative<StageSpec::BatchNorm>(before->kind) || std::holds_alternative<StageSpec::Residual>(before->kind));
}

Operation ArchitectureModel::build(const StageSpec& stage, const StageSpec* before) {
  std::vector<Tensor> slots = parameters(stage);
  const auto make = Overload{
      [&](const StageSpec::Conv& spec) -> Operation {
        const std::array<std::int64_t, 2> stride{spec.stride, spec.stride}, padding{spec.padding, spec.padding}, dilation{1, 1};
        const Tensor bias = spec.bias ? slots[1] : Tensor();
        return [=, weight = slots[0], groups = spec.groups](Tensor x, ForwardContext&) {
          return at::conv2d(x, weight, bias, stride, padding, dilation, groups);
        };
      },
      [](const StageSpec::Linear&) -> Operation { FL_CHECK(false, "linear stages belong to a dense run"); },
      [&](const StageSpec::Activation& spec) { return activation(spec.kind, may_overwrite(before)); },
      [](const StageSpec::Pool& spec) { return pool(spec); },
      [](const StageSpec::Flatten&) -> Operation { return [](Tensor x, ForwardContext&) { return at::flatten(x, 1); }; },
      [](const StageSpec::Dropout& spec) -> Operation {
        return [p = spec.probability](Tensor x, ForwardContext& context) { return dropout(x, p, context); };
      },
      [&](const StageSpec::GroupNorm& spec) -> Operation {
        return [=](Tensor x, ForwardContext&) { return at::group_norm(x, spec.groups, slots[0], slots[1], spec.epsilon, false); };
      },
      [&](const StageSpec::BatchNorm& spec) -> Operation {
        return [=](Tensor x, ForwardContext& context) { return batch_norm(x, spec, slots, context.training); };
      },
      [&](const StageSpec::Embedding&) -> Operation {
        return [weight = slots[0]](Tensor x, ForwardContext&) { return at::embedding(weight, x.to(torch::kLong)); };
      },
      [&](const StageSpec::Lstm& spec) -> Operation {
        return [=](Tensor x, ForwardContext& context) { return lstm(x, spec, slots, context.training); };
      },
      [&](const StageSpec::Residual& spec) -> Operation {
        return [body = build(spec.body), shortcut = build(spec.shortcut)](Tensor x, ForwardContext& context) {
          const Tensor way_round = run(body, x, context);
          return way_round + run(shortcut, x, context);
        };
      }};
  return std::visit(make, stage.kind);
}

class ArchitectureFactory final : public ModelFactory {
 public:
  explicit ArchitectureFactory(Architecture architecture)
      : architecture_(std::make_shared<const Architecture>(std::move(architecture))) {}

  std::unique_ptr<Model> make(std::uint64_t seed) const override { return make_architecture_model(architecture_, seed); }
  std::unique_ptr<Model> make_on(std::uint64_t seed, const std::shared_ptr<Accelerator>& accelerator) const override {
    auto device = std::dynamic_pointer_cast<TorchAccelerator>(accelerator);
    FL_CHECK(device != nullptr, "an accelerator that LibTorch does not drive");
    return make_architecture_model(architecture_, seed, std::move(device));
  }
  ModelCost cost() const override { return architecture_->cost; }

 private:
  std::shared_ptr<const Architecture> architecture_;
};

/// The component "spec": the network stands in the experiment itself.
struct SpecOptions {
  std::vector<std::int64_t> input;
  std::optional<std::int64_t> classes;
  nlohmann::json stages;

  void fields(Fields& f) {
    f.integers("input", input, 0, {1}, "shape of one example; [] for the data's");
    f.optional_integer("classes", classes, {1}, "number of classes; null for the data's");
    f.raw("stages", stages, "a list of stages", "what happens to an example, in order");
  }
};

std::unique_ptr<ModelFactory> make_spec(const SpecOptions& options, const ModelContext& context) {
  nlohmann::json spec = {{"stages", options.stages}};
  if (!options.input.empty()) spec["input"] = options.input;
  if (options.classes) spec["classes"] = *options.classes;
  return std::make_unique<ArchitectureFactory>(parse_architecture(spec, context.shape, context.path));
}

[[maybe_unused]] const bool spec_registered = models().add_factory<SpecOptions>(
    "spec", "a network written out as a list of stages", make_spec);

}  // namespace

std::unique_ptr<Model> make_architecture_model(std::shared_ptr<const Architecture> architecture, std::uint64_t seed,
                                               std::shared_ptr<TorchAccelerator> accelerator) {
  return std::make_unique<ArchitectureModel>(std::move(architecture), seed, std::move(accelerator));
}

bool register_preset(const std::string& name, const std::string& text) {
  const nlohmann::json spec = parse_json(text, "preset " + name);
  return models().add_factory<NoOptions>(
      name, spec.at("summary").get<std::string>(),
      [name, spec](const NoOptions&, const ModelContext& context) -> std::unique_ptr<ModelFactory> {
        return std::make_unique<ArchitectureFactory>(
            parse_architecture(spec, context.shape, context.path + "(" + name + ")"));
      });
}

}  // namespace fl
