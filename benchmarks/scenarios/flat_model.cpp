// A model for benchmarks of the transport, linked into each of them.
#include <memory>
#include <vector>

#include "fl_core/ml/model.h"

namespace fl {
namespace {

struct FlatOptions {
  std::int64_t parameters = 1;
  void fields(Fields& f) { f.integer("parameters", parameters, {1, 1'000'000'000}, "floats in the one slot"); }
};

/// A model of any size that nobody trains.
class FlatModel final : public Model {
 public:
  explicit FlatModel(std::int64_t parameters)
      : layout_(std::make_shared<Layout>(std::vector<Slot>{{"w", {parameters}, SlotKind::weight}})), weights_(static_cast<std::size_t>(parameters)) {
    for (std::size_t i = 0; i < weights_.size(); ++i) weights_[i] = static_cast<float>(i % 1000) * 1e-6F;
  }
  const SharedLayout& layout() const override { return layout_; }
  std::span<float> weights() override { return weights_.span(); }
  std::span<const float> gradient() const override { return {}; }
  double backward(const Batch&, Rng&) override { return 0; }
  Evaluation evaluate(const Batch&) override { return {}; }

 private:
  SharedLayout layout_;
  AlignedArray<float> weights_;
};

class Flat final : public ModelFactory {
 public:
  Flat(const FlatOptions& options, const ModelContext&) : parameters_(options.parameters) {}
  std::unique_ptr<Model> make(std::uint64_t) const override { return std::make_unique<FlatModel>(parameters_); }
  ModelCost cost() const override {
    ModelCost cost;
    cost.parameters = parameters_;
    return cost;
  }

 private:
  std::int64_t parameters_;
};

FL_REGISTER(models(), "flat", Flat, FlatOptions, "one slot of any size; for benchmarks of the transport");

}  // namespace
}  // namespace fl
