#include "fl_core/ml/dense_network.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/ml/dense_loops.h"

namespace fl {
namespace {

/// Cross entropy of one example, and its derivative by the logits times `share`. A logit that is not finite makes both NaN.
double cross_entropy(std::span<const float> logits, std::size_t label, double share, std::span<float> derivative) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (std::size_t c = 0; c < logits.size(); ++c) {
    const double power = std::exp(static_cast<double>(logits[c]) - largest);
    total += power;
    derivative[c] = static_cast<float>(power);
  }
  const double scale = share / total;
  for (float& value : derivative) value = static_cast<float>(static_cast<double>(value) * scale);
  derivative[label] -= static_cast<float>(share);
  return largest + std::log(total) - static_cast<double>(logits[label]);
}

}  // namespace

std::optional<DenseNetwork> DenseNetwork::of(const Architecture& architecture) {
  if (architecture.layout->size() > kMaxWeights) return std::nullopt;
  std::vector<Layer> layers;
  for (const StageSpec& stage : architecture.stages) {
    if (std::holds_alternative<StageSpec::Flatten>(stage.kind) && layers.empty()) continue;
    const auto* activation = std::get_if<StageSpec::Activation>(&stage.kind);
    if (activation != nullptr && activation->kind == StageSpec::Activation::Kind::relu && !layers.empty()) {
      layers.back().relu = true;
      continue;
    }
    const auto* linear = std::get_if<StageSpec::Linear>(&stage.kind);
    if (linear == nullptr) return std::nullopt;
    const auto offset = [&](std::size_t i) { return architecture.layout->slots()[stage.slots[i]].offset; };
    Layer layer{static_cast<std::size_t>(linear->in), static_cast<std::size_t>(linear->out), offset(0), std::nullopt, false, {}, {}};
    if (linear->bias) layer.bias = offset(1);
    layers.push_back(std::move(layer));
  }
  if (layers.empty()) return std::nullopt;
  return DenseNetwork(std::move(layers));
}

double DenseNetwork::backward(const Batch& batch, std::span<const float> weights, std::span<float> gradient) {
  const std::size_t rows = batch.labels.size();
  FL_CHECK(rows > 0 && batch.inputs.size() == rows * layers_.front().in, "a batch whose inputs and labels disagree");
  const DenseLoops& loops = dense_loops();
  const float* x = batch.inputs.data();
  for (Layer& layer : layers_) {
    layer.output.resize(rows * layer.out);
    layer.flowing.resize(rows * layer.out);
    loops.dots(x, rows, weights.data() + layer.weight, layer.out, layer.in, layer.bias ? weights.data() + *layer.bias : nullptr, layer.output.data());
    if (layer.relu) {
      for (float& value : layer.output) value = value < 0 ? 0.0F : value;  // NaN stays
    }
    x = layer.output.data();
  }
  const double loss_sum = loss(batch.labels);
  for (std::size_t i = layers_.size(); i-- > 0;) {
    Layer& layer = layers_[i];
    if (layer.relu) {
      for (std::size_t k = 0; k < layer.flowing.size(); ++k) layer.flowing[k] = layer.output[k] <= 0 ? 0.0F : layer.flowing[k];
    }
    const float* const input = i > 0 ? layers_[i - 1].output.data() : batch.inputs.data();
    loops.combine(layer.flowing.data(), 1, layer.out, layer.out, rows, input, layer.in, gradient.data() + layer.weight);
    if (layer.bias) {
      const std::span<float> sums = gradient.subspan(*layer.bias, layer.out);
      std::fill(sums.begin(), sums.end(), 0.0F);
      for (std::size_t k = 0; k < layer.flowing.size(); k += layer.out) {
        for (std::size_t o = 0; o < layer.out; ++o) sums[o] += layer.flowing[k + o];
      }
    }
    if (i > 0) loops.combine(layer.flowing.data(), layer.out, 1, rows, layer.out, weights.data() + layer.weight, layer.in, layers_[i - 1].flowing.data());
  }
  return loss_sum / static_cast<double>(rows);
}

/// The sum of the examples' losses; the derivative of their mean goes to the last layer's `flowing`.
double DenseNetwork::loss(std::span<const std::int64_t> labels) {
  Layer& last = layers_.back();
  const double share = 1.0 / static_cast<double>(labels.size());
  double sum = 0;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const auto label = static_cast<std::size_t>(labels[i]);
    FL_CHECK(label < last.out, "a label beyond the classes");
    sum += cross_entropy(std::span(last.output).subspan(i * last.out, last.out), label, share, std::span(last.flowing).subspan(i * last.out, last.out));
  }
  return sum;
}

}  // namespace fl
