#include "fl_core/ml/model.h"

#include <limits>

#include "fl_core/base/error.h"

namespace fl {

std::size_t Model::clipped_backward(const Batch&, double, Rng&) {
  throw ConfigError("this model gives no gradients of single examples, which dp_sgd needs; choose one that is made of stages");
}

std::unique_ptr<Model> ModelFactory::make_on(std::uint64_t, const std::shared_ptr<Accelerator>&) const {
  throw ConfigError("model.name: this model runs on the cpu only; set \"device\" to \"cpu\", or choose another");
}

namespace {

std::int64_t sum(const std::vector<std::int64_t>& values) {
  std::int64_t total = 0;
  for (const std::int64_t value : values) total += value;
  return total;
}

void add(std::vector<std::int64_t>& into, const std::vector<std::int64_t>& from) {
  if (into.empty()) into.resize(from.size());
  FL_CHECK(into.size() == from.size() || from.empty(), "evaluations of different class counts");
  for (std::size_t i = 0; i < from.size(); ++i) into[i] += from[i];
}

}  // namespace

void Evaluation::merge(const Evaluation& other) {
  loss_units += other.loss_units;
  add(correct, other.correct);
  add(examples, other.examples);
  finite = finite && other.finite;
}

std::int64_t Evaluation::total() const { return sum(examples); }
std::int64_t Evaluation::total_correct() const { return sum(correct); }

double Evaluation::accuracy() const {
  const std::int64_t count = total();
  return count == 0 ? 0 : static_cast<double>(total_correct()) / static_cast<double>(count);
}

double Evaluation::loss() const {
  const std::int64_t count = total();
  if (!finite || count == 0) return std::numeric_limits<double>::quiet_NaN();
  return static_cast<double>(loss_units) * kLossUnit / static_cast<double>(count);
}

ModelRegistry& models() {
  static ModelRegistry registry("model");
  return registry;
}

}  // namespace fl
