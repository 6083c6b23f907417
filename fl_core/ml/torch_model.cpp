#include "fl_core/ml/torch_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>
#include <sstream>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/ml/torch_accelerator.h"
#include "fl_core/ml/torch_resident.h"

namespace fl {
namespace {

std::string text(at::IntArrayRef sizes) {
  std::ostringstream out;
  out << sizes;
  return out.str();
}

/// The draw below which an element is dropped; 2^32 draws are possible.
std::uint64_t drop_below(double probability) { return static_cast<std::uint64_t>(std::llround(probability * 0x1p32)); }

template <class Layer>
bool draws(const torch::nn::Module& module) {
  const auto* layer = module.as<Layer>();
  return layer != nullptr && layer->options.p() > 0;
}

/// Whether a layer of LibTorch's own would draw from the global generator in training.
bool draws_globally(const torch::nn::Module& module) {
  if (const auto* lstm = module.as<torch::nn::LSTMImpl>()) return lstm->options.dropout() > 0;
  if (const auto* gru = module.as<torch::nn::GRUImpl>()) return gru->options.dropout() > 0;
  return draws<torch::nn::DropoutImpl>(module) || draws<torch::nn::Dropout2dImpl>(module) ||
         draws<torch::nn::Dropout3dImpl>(module) || draws<torch::nn::AlphaDropoutImpl>(module) ||
         draws<torch::nn::FeatureAlphaDropoutImpl>(module) || module.as<torch::nn::RReLUImpl>() != nullptr;
}

/// A copy on a GPU that does not make the caller wait.
torch::Tensor copied_to(torch::Device device, const torch::Tensor& host) { return host.pin_memory().to(device, /*non_blocking=*/true); }

}  // namespace

torch::Tensor dropout(const torch::Tensor& input, double probability, ForwardContext& context) {
  if (!context.training || probability == 0) return input;
  const torch::Tensor mask = dropout_mask(input.sizes(), probability, context.rng);
  return input * (input.is_cpu() ? mask : copied_to(input.device(), mask));
}

torch::Tensor dropout_mask(at::IntArrayRef sizes, double probability, Rng& rng) {
  const std::uint64_t limit = drop_below(probability);
  const float scale = static_cast<float>(1 / (1 - probability));
  torch::Tensor mask = torch::empty(sizes, torch::kFloat);
  float* const values = mask.data_ptr<float>();
  const std::int64_t count = mask.numel();
  for (std::int64_t i = 0; i < count; ++i) values[i] = rng.next_u32() < limit ? 0.0F : scale;
  return mask;
}

TorchModel::TorchModel(SharedLayout layout, ExampleShape shape, std::string name, std::shared_ptr<TorchAccelerator> accelerator)
    : layout_(std::move(layout)),
      shape_(std::move(shape)),
      name_(std::move(name)),
      weights_(layout_->size()),
      gradient_(layout_->weight_count()),
      input_sizes_{0} {
  input_sizes_.insert(input_sizes_.end(), shape_.input.begin(), shape_.input.end());
  if (!accelerator) return;
  TorchResident::Network network;
  network.backward = [this](const torch::Tensor& inputs, const torch::Tensor& labels, Rng& rng) { return loss_of(inputs, labels, rng); };
  network.logits = [this](const torch::Tensor& inputs) {
    Rng unused(0, Purpose::evaluation);
    ForwardContext context{false, unused};
    return logits_of(inputs, context);
  };
  resident_ = std::make_unique<TorchResident>(std::move(accelerator), weights_.span(), layout_->weight_count(), shape_, std::move(network));
}

TorchModel::~TorchModel() = default;

std::span<float> TorchModel::weights() {
  if (resident_) resident_->host_changes();
  return weights_.span();
}

ResidentModel* TorchModel::resident() { return resident_.get(); }

torch::Tensor TorchModel::host_view(std::size_t slot) {
  const Slot& place = layout_->slots()[slot];
  return torch::from_blob(weights_.data() + place.offset, place.shape, torch::kFloat);
}

torch::Tensor TorchModel::weight_view(std::size_t slot) {
  if (!resident_) return host_view(slot);
  const Slot& place = layout_->slots()[slot];
  // Not a slice: its version would be that of all weights, and a statistic that moves would make autograd refuse the others.
  return torch::from_blob(resident_->weights().data_ptr<float>() + place.offset, place.shape, resident_->accelerator().floats());
}

torch::Tensor TorchModel::gradient_view(std::size_t slot) {
  const Slot& place = layout_->slots()[slot];
  FL_CHECK(place.kind == SlotKind::weight, "slot '" + place.name + "' has no gradient");
  if (resident_) return torch::from_blob(resident_->gradient().data_ptr<float>() + place.offset, place.shape, resident_->accelerator().floats());
  return torch::from_blob(gradient_.data() + place.offset, place.shape, torch::kFloat);
}

void TorchModel::collect_from(std::size_t slot, torch::Tensor parameter) {
  float* const all = resident_ ? resident_->weights().data_ptr<float>() : weights_.data();
  float* const weights = all + layout_->slots()[slot].offset;
  FL_CHECK(parameter.requires_grad() && parameter.data_ptr<float>() == weights, "a parameter that is no view of its slot");
  collected_.push_back({std::move(parameter), gradient_view(slot), weights});
}

torch::Tensor TorchModel::inputs_of(const Batch& batch) {
  FL_CHECK(batch.inputs.size() == batch.labels.size() * shape_.input_size(), "a batch whose inputs and labels disagree");
  input_sizes_[0] = static_cast<std::int64_t>(batch.labels.size());
  // from_blob wants a mutable pointer; nothing writes through it, since an input is never changed in place.
  return torch::from_blob(const_cast<float*>(batch.inputs.data()), input_sizes_, torch::kFloat);
}

torch::Tensor TorchModel::logits_of(torch::Tensor inputs, ForwardContext& context) {
  const std::int64_t rows = inputs.size(0);
  torch::Tensor logits = forward(std::move(inputs), context);
  if (logits.dim() != 2 || logits.size(0) != rows || logits.size(1) != shape_.classes) {
    throw ConfigError("model '" + name_ + "': its forward pass gives " + text(logits.sizes()) + ", expected [rows, classes] = [" +
                      std::to_string(rows) + ", " + std::to_string(shape_.classes) + "]");
  }
  return logits;
}

torch::Tensor TorchModel::labels_of(const Batch& batch) const {
  return torch::from_blob(const_cast<std::int64_t*>(batch.labels.data()), {static_cast<std::int64_t>(batch.labels.size())},
                          torch::kLong);
}

double TorchModel::backward(const Batch& batch, Rng& rng) {
  FL_CHECK(!batch.labels.empty(), "backward on an empty batch");
  if (resident_) return resident_->backward_once(batch, rng, gradient_.span());
  return static_cast<double>(loss_of(inputs_of(batch), labels_of(batch), rng).item<float>());
}

/// Forward and backward where the tensors are; the gradient is left in its array.
torch::Tensor TorchModel::loss_of(const torch::Tensor& inputs, const torch::Tensor& labels, Rng& rng) {
  const torch::AutoGradMode recording(true);
  // A step that threw may have left gradients behind, and autograd would add to them.
  for (Collected& one : collected_) one.parameter.mutable_grad().reset();
  ForwardContext context{true, rng};
  torch::Tensor loss = at::cross_entropy_loss(logits_of(inputs, context), labels);
  loss.backward();
  collect_gradients();
  return loss;
}

void TorchModel::try_out_resident() {
  const std::vector<float> zeros(2 * shape_.input_size());
  const std::vector<std::int64_t> labels(2);
  const std::vector<float> before(weights_.span().begin(), weights_.span().end());
  Rng rng(0, Purpose::dropout);
  resident_->backward_once({zeros, labels}, rng, gradient_.span());
  std::copy(before.begin(), before.end(), weights().begin());
}

void TorchModel::collect_gradients() {
  for (Collected& one : collected_) {
    FL_CHECK(one.parameter.data_ptr<float>() == one.weights, "model '" + name_ + "' moved a parameter out of its slot");
    const torch::Tensor fresh = std::exchange(one.parameter.mutable_grad(), torch::Tensor());
    if (!fresh.defined()) {
      one.gradient.zero_();  // forward() did not use this parameter
    } else if (resident_) {
      const torch::NoGradGuard no_grad;
      one.gradient.copy_(fresh.layout() == torch::kStrided ? fresh : fresh.to_dense());
    } else if (fresh.layout() == torch::kStrided && fresh.is_contiguous()) {
      std::memcpy(one.gradient.data_ptr<float>(), fresh.data_ptr<float>(), static_cast<std::size_t>(fresh.numel()) * sizeof(float));
    } else {
      one.gradient.copy_(fresh.layout() == torch::kStrided ? fresh : fresh.to_dense());
    }
  }
}

Evaluation TorchModel::evaluate(const Batch& batch) {
  constexpr double kLossLimit = 0x1p20;
  Evaluation sums;
  sums.correct.resize(static_cast<std::size_t>(shape_.classes));
  sums.examples.resize(static_cast<std::size_t>(shape_.classes));
  if (batch.labels.empty()) return sums;
  if (resident_) return resident_->evaluate_once(batch);
  const torch::NoGradGuard no_grad;
  Rng unused(0, Purpose::evaluation);
  ForwardContext context{false, unused};
  const torch::Tensor logits = logits_of(inputs_of(batch), context).contiguous();
  const torch::Tensor losses = at::cross_entropy_loss(logits, labels_of(batch), {}, at::Reduction::None);
  const float* const loss = losses.data_ptr<float>();
  const float* row = logits.data_ptr<float>();
  for (std::size_t i = 0; i < batch.labels.size(); ++i, row += shape_.classes) {
    const auto label = static_cast<std::size_t>(batch.labels[i]);
    const auto nats = static_cast<double>(loss[i]);
    if (nats <= kLossLimit) {
      sums.loss_units += std::llround(nats / kLossUnit);
    } else {
      sums.finite = false;  // NaN compares false, so it lands here too
    }
    const float* const best = std::max_element(row, row + shape_.classes);
    ++sums.examples[label];
    if (static_cast<std::size_t>(best - row) == label && std::isfinite(*best)) ++sums.correct[label];
  }
  return sums;
}

namespace {

/// A user's module whose parameters and float buffers were moved into the flat arrays.
class ModuleModel final : public TorchModel {
 public:
  ModuleModel(const std::shared_ptr<TorchModule>& module, const ExampleShape& shape, const std::string& name,
              const std::shared_ptr<TorchAccelerator>& accelerator = nullptr)
      : TorchModel(layout_of(*module, name), shape, name, accelerator), module_(module) {
    std::size_t slot = 0;
    const auto adopt = [&](torch::Tensor tensor) {
      host_view(slot).copy_(tensor.detach());
      tensor.set_data(weight_view(slot));
      if (tensor.requires_grad()) collect_from(slot, tensor);
      ++slot;
    };
    for (const auto& parameter : module_->named_parameters()) adopt(parameter.value());
    for (const auto& buffer : module_->named_buffers()) {
      if (buffer.value().scalar_type() == torch::kFloat) {
        adopt(buffer.value());
      } else if (accelerator) {
        torch::Tensor other = buffer.value();
        other.set_data(other.to(accelerator->device()));
      }
    }
    module_->train(training_);
    if (accelerator) try_out_resident();
  }

 private:
  static SharedLayout layout_of(const TorchModule& module, const std::string& name);

  torch::Tensor forward(torch::Tensor inputs, ForwardContext& context) override {
    if (context.training != training_) module_->train(context.training);
    training_ = context.training;
    return module_->forward(std::move(inputs), context);
  }

  std::shared_ptr<TorchModule> module_;
  bool training_ = true;
};

SharedLayout ModuleModel::layout_of(const TorchModule& module, const std::string& name) {
  std::vector<Slot> slots;
  for (const auto& parameter : module.named_parameters()) {
    if (parameter.value().scalar_type() != torch::kFloat) {
      throw ConfigError("model '" + name + "': parameter '" + parameter.key() + "' holds " +
                        std::string(parameter.value().dtype().name()) + ", expected float");
    }
    slots.push_back({parameter.key(), parameter.value().sizes().vec()});
  }
  if (slots.empty()) throw ConfigError("model '" + name + "': it has no parameters; register its layers with register_module");
  for (const auto& buffer : module.named_buffers()) {
    if (buffer.value().scalar_type() == torch::kFloat) {
      slots.push_back({buffer.key(), buffer.value().sizes().vec(), SlotKind::statistic});
    }
  }
  return std::make_shared<const Layout>(std::move(slots));
}

/// Runs `make` with LibTorch's global generator seeded, and puts the generator back. One thread at a time, because there is
/// only one such generator.
std::shared_ptr<TorchModule> make_seeded(const MakeModule& make, const ExampleShape& shape, std::uint64_t seed) {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  torch::Generator generator = at::detail::getDefaultCPUGenerator();
  struct Restore {
    torch::Generator& generator;
    torch::Tensor state;
    ~Restore() {
      const std::lock_guard inner(generator.mutex());
      generator.set_state(state);
    }
  };
  Restore restore{generator, {}};
  {
    const std::lock_guard inner(generator.mutex());
    restore.state = generator.get_state();
    generator.set_current_seed(Rng(seed, Purpose::model_init).next_u64());
  }
  return make(shape);
}

class ModuleFactory final : public ModelFactory {
 public:
  ModuleFactory(std::string name, MakeModule make, const ModelContext& context)
      : name_(std::move(name)), make_(std::move(make)), shape_(context.shape) {
    try {
      try_out();
    } catch (const c10::Error& error) {
      throw ConfigError(context.path + ": the module '" + name_ + "' does not work on examples of shape " + text(shape_.input) +
                        ": " + first_line(error.what_without_backtrace()));
    } catch (const ConfigError& error) {
      throw ConfigError(context.path + ": " + error.what());
    }
  }

  std::unique_ptr<Model> make(std::uint64_t seed) const override {
    return std::make_unique<ModuleModel>(make_seeded(make_, shape_, seed), shape_, name_);
  }
  std::unique_ptr<Model> make_on(std::uint64_t seed, const std::shared_ptr<Accelerator>& accelerator) const override {
    auto device = std::dynamic_pointer_cast<TorchAccelerator>(accelerator);
    FL_CHECK(device != nullptr, "an accelerator that LibTorch does not drive");
    try {
      return std::make_unique<ModuleModel>(make_seeded(make_, shape_, seed), shape_, name_, device);
    } catch (const c10::Error& error) {
      throw ConfigError("model.name: the module '" + name_ + "' does not work on " + device->name() + ": " + first_line(error.what_without_backtrace()));
    }
  }
  ModelCost cost() const override { return cost_; }

 private:
  static std::string first_line(const std::string& message) { return message.substr(0, message.find('\n')); }

  void try_out() {
    const std::shared_ptr<TorchModule> module = make_seeded(make_, shape_, 0);
    for (const auto& part : module->modules()) {
      if (!draws_globally(*part)) continue;
      throw ConfigError("model '" + name_ + "': " + part->name() +
                        " draws from LibTorch's global generator, which differs between threads; use fl::dropout in forward()");
    }
    ModuleModel model(module, shape_, name_);
    const std::vector<float> zeros(shape_.input_size());
    const std::vector<std::int64_t> label(1);
    model.evaluate({zeros, label});
    cost_.parameters = static_cast<std::int64_t>(model.layout()->weight_count());
  }

  std::string name_;
  MakeModule make_;
  ExampleShape shape_;
  ModelCost cost_;
};

}  // namespace

std::unique_ptr<ModelFactory> make_module_factory(const std::string& name, MakeModule make, const ModelContext& context) {
  return std::make_unique<ModuleFactory>(name, std::move(make), context);
}

}  // namespace fl
