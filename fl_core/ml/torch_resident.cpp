#include "fl_core/ml/torch_resident.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// Of a loss that has not diverged, as in TorchModel::evaluate().
constexpr double kLossLimit = 0x1p20;

/// Host memory as a tensor; nothing writes to it.
torch::Tensor view_of(std::span<const float> values, at::IntArrayRef sizes) { return torch::from_blob(const_cast<float*>(values.data()), sizes, torch::kFloat); }
torch::Tensor view_of(std::span<const std::int64_t> values) {
  return torch::from_blob(const_cast<std::int64_t*>(values.data()), {static_cast<std::int64_t>(values.size())}, torch::kLong);
}

}  // namespace

TorchResident::TorchResident(std::shared_ptr<TorchAccelerator> accelerator, std::span<float> host, std::size_t weight_count, ExampleShape shape, Network network)
    : accelerator_(std::move(accelerator)),
      host_(host),
      weight_count_(static_cast<std::int64_t>(weight_count)),
      shape_(std::move(shape)),
      network_(std::move(network)) {
  accelerator_->within_memory([&] {
    weights_ = torch::zeros({static_cast<std::int64_t>(host_.size())}, accelerator_->floats());
    gradient_ = torch::zeros({weight_count_}, accelerator_->floats());
    losses_ = torch::zeros({static_cast<std::int64_t>(kMostSteps)}, accelerator_->floats());
  });
}

void TorchResident::upload() {
  weights_.copy_(view_of(host_, {weights_.numel()}));
  host_is_newer_ = false;
  ++accelerator_->copies().weights_up;
}

void TorchResident::download() {
  torch::from_blob(host_.data(), {weights_.numel()}, torch::kFloat).copy_(weights_);
  ++accelerator_->copies().weights_down;
}

void TorchResident::begin(const ResidentRule& rule) {
  const torch::NoGradGuard no_grad;
  accelerator_->within_memory([&] {
    rule_ = rule;
    steps_ = 0;
    upload();
    // Until finish() the device's weights are not the host's.
    host_is_newer_ = true;
    moment_ = rule.sgd.momentum != 0 ? torch::zeros_like(gradient_) : torch::Tensor();
    start_ = rule.pull != 0 ? weights_.narrow(0, 0, weight_count_).clone() : torch::Tensor();
  });
}

void TorchResident::set_order(const Dataset& data, std::span<const std::uint32_t> examples) {
  accelerator_->within_memory([&] {
    data_ = &data;
    examples_ = examples;
    resident_ = accelerator_->data(data);
    if (!resident_) return;
    const std::vector<std::int64_t> order(examples.begin(), examples.end());
    order_ = accelerator_->upload(view_of(order));
  });
}

TorchResident::Examples TorchResident::copied(const Batch& batch) {
  FL_CHECK(batch.inputs.size() == batch.labels.size() * shape_.input_size(), "a batch whose inputs and labels disagree");
  std::vector<std::int64_t> sizes{static_cast<std::int64_t>(batch.labels.size())};
  sizes.insert(sizes.end(), shape_.input.begin(), shape_.input.end());
  ++accelerator_->copies().batches;
  return {accelerator_->upload(view_of(batch.inputs, sizes)), accelerator_->upload(view_of(batch.labels))};
}

TorchResident::Examples TorchResident::batch(std::size_t first, std::size_t count) {
  FL_CHECK(data_ != nullptr && count > 0 && first + count <= examples_.size(), "a batch beyond the order");
  if (!resident_) return copied(buffer_.gather(*data_, examples_.subspan(first, count)));
  const torch::Tensor rows = order_.narrow(0, static_cast<std::int64_t>(first), static_cast<std::int64_t>(count));
  return {resident_->inputs.index_select(0, rows), resident_->labels.index_select(0, rows)};
}

void TorchResident::step(std::size_t first, std::size_t count, Rng& dropout) {
  FL_CHECK(steps_ < static_cast<std::int64_t>(kMostSteps), "losses() must be called between so many steps");
  accelerator_->within_memory([&] {
    const Examples examples = batch(first, count);
    const torch::Tensor loss = network_.backward(examples.inputs, examples.labels, dropout);
    const torch::NoGradGuard no_grad;
    losses_[steps_++].copy_(loss.detach());
    apply_rule();
  });
}

/// kernels::sgd() and what LocalSgd does before it, on whole arrays.
void TorchResident::apply_rule() {
  const kernels::SgdStep& sgd = rule_.sgd;
  torch::Tensor weights = weights_.narrow(0, 0, weight_count_);
  if (rule_.pull != 0) gradient_.add_(weights, rule_.pull).add_(start_, -rule_.pull);
  if (rule_.clip_norm) gradient_.mul_(torch::clamp_max(*rule_.clip_norm / gradient_.norm(), 1));
  if (sgd.weight_decay != 0) gradient_.add_(weights, sgd.weight_decay);
  if (sgd.momentum == 0) {
    weights.add_(gradient_, -sgd.rate);
    return;
  }
  moment_.mul_(sgd.momentum).add_(gradient_, 1 - sgd.dampening);
  weights.add_(sgd.nesterov ? gradient_.add_(moment_, sgd.momentum) : moment_, -sgd.rate);
}

std::vector<float> TorchResident::losses() {
  const torch::NoGradGuard no_grad;
  const torch::Tensor filled = losses_.narrow(0, 0, std::exchange(steps_, 0)).cpu();
  const float* const values = filled.data_ptr<float>();
  return {values, values + filled.numel()};
}

void TorchResident::finish() {
  const torch::NoGradGuard no_grad;
  download();
}

/// sums: int64[2 + classes], the loss in units, examples whose loss is no usable number, and right answers by class.
void TorchResident::add_to(torch::Tensor& sums, const Examples& batch) {
  const torch::Tensor logits = network_.logits(batch.inputs);
  const torch::Tensor losses = at::cross_entropy_loss(logits, batch.labels, {}, at::Reduction::None);
  const torch::Tensor usable = losses <= kLossLimit;  // NaN compares false
  const torch::Tensor units = torch::where(usable, losses, torch::zeros_like(losses)).to(torch::kDouble).div_(kLossUnit).round_().to(torch::kLong);
  const auto [best, place] = torch::max(logits, 1);
  const torch::Tensor right = (place == batch.labels).logical_and(torch::isfinite(best));
  // Counted by comparing with every class: adding up by index would not be deterministic on a GPU.
  const torch::Tensor classes = torch::arange(shape_.classes, batch.labels.options());
  const torch::Tensor by_class = (batch.labels.unsqueeze(1) == classes).logical_and(right.unsqueeze(1));
  sums.narrow(0, 0, 1).add_(units.sum());
  sums.narrow(0, 1, 1).add_(usable.logical_not().sum());
  sums.narrow(0, 2, shape_.classes).add_(by_class.sum(0));
}

Evaluation TorchResident::read(const torch::Tensor& sums) const {
  const torch::Tensor host = sums.cpu();
  const std::int64_t* const values = host.data_ptr<std::int64_t>();
  Evaluation evaluation;
  evaluation.loss_units = values[0];
  evaluation.finite = values[1] == 0;
  evaluation.correct.assign(values + 2, values + 2 + shape_.classes);
  evaluation.examples.resize(static_cast<std::size_t>(shape_.classes));
  return evaluation;
}

Evaluation TorchResident::evaluate(const Dataset& data, std::span<const std::uint32_t> examples, std::size_t batch_size) {
  if (examples.empty()) return {};
  const torch::NoGradGuard no_grad;
  return accelerator_->within_memory([&] {
    if (host_is_newer_) upload();
    set_order(data, examples);
    torch::Tensor sums = torch::zeros({2 + shape_.classes}, accelerator_->floats().dtype(torch::kLong));
    for (std::size_t start = 0; start < examples.size(); start += batch_size) add_to(sums, batch(start, std::min(batch_size, examples.size() - start)));
    Evaluation evaluation = read(sums);
    for (const std::uint32_t example : examples) ++evaluation.examples[static_cast<std::size_t>(data.labels()[example])];
    return evaluation;
  });
}

double TorchResident::backward_once(const Batch& batch, Rng& rng, std::span<float> gradient) {
  return accelerator_->within_memory([&] {
    {
      const torch::NoGradGuard no_grad;
      upload();
    }
    const Examples examples = copied(batch);
    const torch::Tensor loss = network_.backward(examples.inputs, examples.labels, rng);
    const torch::NoGradGuard no_grad;
    torch::from_blob(gradient.data(), {weight_count_}, torch::kFloat).copy_(gradient_);
    download();  // running statistics have moved
    host_is_newer_ = true;
    return static_cast<double>(loss.item<float>());
  });
}

Evaluation TorchResident::evaluate_once(const Batch& batch) {
  const torch::NoGradGuard no_grad;
  return accelerator_->within_memory([&] {
    if (host_is_newer_) upload();
    torch::Tensor sums = torch::zeros({2 + shape_.classes}, accelerator_->floats().dtype(torch::kLong));
    add_to(sums, copied(batch));
    Evaluation evaluation = read(sums);
    for (const std::int64_t label : batch.labels) ++evaluation.examples[static_cast<std::size_t>(label)];
    return evaluation;
  });
}

}  // namespace fl
