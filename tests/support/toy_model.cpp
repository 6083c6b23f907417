#include "tests/support/toy_model.h"

#include <algorithm>
#include <cmath>

namespace fl::test {
namespace {

class ToyModel final : public Model {
 public:
  ToyModel(const ExampleShape& shape, std::uint64_t seed)
      : inputs_(shape.input_size()),
        classes_(static_cast<std::size_t>(shape.classes)),
        layout_(std::make_shared<Layout>(std::vector<Slot>{
            {"weight", {shape.classes, static_cast<std::int64_t>(inputs_)}, SlotKind::weight},
            {"bias", {shape.classes}, SlotKind::weight},
            {"seen", {1}, SlotKind::statistic}})),
        weights_(layout_->size()),
        gradient_(layout_->weight_count()),
        scores_(classes_) {
    Rng rng(seed, Purpose::model_init);
    for (std::size_t i = 0; i < classes_ * inputs_; ++i) weights_[i] = static_cast<float>(0.1 * (rng.uniform() - 0.5));
  }

  const SharedLayout& layout() const override { return layout_; }
  std::span<float> weights() override { return weights_.span(); }
  std::span<const float> gradient() const override { return gradient_.span(); }

  double backward(const Batch& batch, Rng&) override {
    std::fill(gradient_.span().begin(), gradient_.span().end(), 0.0F);
    double loss = 0;
    const auto share = 1.0F / static_cast<float>(batch.labels.size());
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      const float* x = batch.inputs.data() + i * inputs_;
      const auto label = static_cast<std::size_t>(batch.labels[i]);
      loss += forward(x, label);
      for (std::size_t c = 0; c < classes_; ++c) {
        const float error = (scores_[c] - (c == label ? 1.0F : 0.0F)) * share;
        for (std::size_t k = 0; k < inputs_; ++k) gradient_[c * inputs_ + k] += error * x[k];
        gradient_[classes_ * inputs_ + c] += error;
      }
    }
    weights_[layout_->size() - 1] += 1.0F / 1024;
    return loss / static_cast<double>(batch.labels.size());
  }

  std::size_t clipped_backward(const Batch& batch, double clip_norm, Rng&) override {
    std::fill(gradient_.span().begin(), gradient_.span().end(), 0.0F);
    std::size_t clipped = 0;
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      const float* x = batch.inputs.data() + i * inputs_;
      const auto label = static_cast<std::size_t>(batch.labels[i]);
      forward(x, label);
      scores_[label] -= 1.0F;  // the loss derived by the scores; their outer product with (x, 1) is the gradient
      double inputs = 1;
      double errors = 0;
      for (std::size_t k = 0; k < inputs_; ++k) inputs += std::pow(static_cast<double>(x[k]), 2);
      for (const float error : scores_) errors += std::pow(static_cast<double>(error), 2);
      const double norm = std::sqrt(inputs * errors);
      if (!std::isfinite(norm)) continue;
      const double limit = clip_norm * (1 - 0x1p-20);  // what is rounded to float stays below clip_norm
      if (norm > limit) ++clipped;
      const double share = norm > limit ? limit / norm : 1;
      for (std::size_t c = 0; c < classes_; ++c) {
        const auto error = static_cast<float>(share * scores_[c]);
        for (std::size_t k = 0; k < inputs_; ++k) gradient_[c * inputs_ + k] += error * x[k];
        gradient_[classes_ * inputs_ + c] += error;
      }
    }
    return clipped;
  }

  Evaluation evaluate(const Batch& batch) override {
    Evaluation sums;
    sums.correct.resize(classes_);
    sums.examples.resize(classes_);
    for (std::size_t i = 0; i < batch.labels.size(); ++i) {
      const auto label = static_cast<std::size_t>(batch.labels[i]);
      const double loss = forward(batch.inputs.data() + i * inputs_, label);
      const bool usable = std::isfinite(loss) && loss < 0x1p20;
      sums.finite = sums.finite && usable;
      if (usable) sums.loss_units += std::llround(loss / kLossUnit);
      const auto best = static_cast<std::size_t>(std::max_element(scores_.begin(), scores_.end()) - scores_.begin());
      sums.correct[label] += best == label ? 1 : 0;
      ++sums.examples[label];
    }
    return sums;
  }

 private:
  /// Leaves the class probabilities in scores_; returns the cross entropy.
  double forward(const float* x, std::size_t label) {
    for (std::size_t c = 0; c < classes_; ++c) {
      float score = weights_[classes_ * inputs_ + c];
      for (std::size_t k = 0; k < inputs_; ++k) score += weights_[c * inputs_ + k] * x[k];
      scores_[c] = score;
    }
    const float top = *std::max_element(scores_.begin(), scores_.end());
    float total = 0;
    for (float& score : scores_) total += score = std::exp(score - top);
    for (float& score : scores_) score /= total;
    return -std::log(static_cast<double>(scores_[label]));
  }

  std::size_t inputs_;
  std::size_t classes_;
  SharedLayout layout_;
  AlignedArray<float> weights_;
  AlignedArray<float> gradient_;
  std::vector<float> scores_;
};

class ToyFactory final : public ModelFactory {
 public:
  ToyFactory(const NoOptions&, const ModelContext& context) : shape_(context.shape) {}
  std::unique_ptr<Model> make(std::uint64_t seed) const override { return make_toy_model(shape_, seed); }
  ModelCost cost() const override { return {}; }

 private:
  ExampleShape shape_;
};

FL_REGISTER(models(), "toy_softmax", ToyFactory, NoOptions, "softmax regression without LibTorch, for tests");

}  // namespace

std::unique_ptr<Model> make_toy_model(const ExampleShape& shape, std::uint64_t seed) { return std::make_unique<ToyModel>(shape, seed); }

nlohmann::json toy_experiment() {
  return nlohmann::json::parse(R"({
    "name": "toy", "seed": 3, "rounds": 4,
    "data": {"name": "synthetic", "examples": 400, "test_examples": 100, "input": [6], "classes": 4},
    "partition": {"name": "iid", "clients": 20},
    "model": {"name": "toy_softmax"},
    "trainer": {"name": "sgd", "batch_size": 5, "learning_rate": 0.1},
    "round": {"cohort": 5}})");
}

}  // namespace fl::test
