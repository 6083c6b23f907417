#include "simulations/pooled_evaluation.h"

#include <cstring>

#include "fl_core/base/error.h"
#include "fl_core/ml/batches.h"

namespace fl {

Evaluation evaluate_part(Worker& worker, const SharedBuffer& weights, const Dataset& test, std::size_t part) {
  const auto bytes = weights.span();
  const std::span<float> model = worker.model->weights();
  if (model.size_bytes() != bytes.size()) throw ProtocolError("the weights are not as long as the model");
  std::memcpy(model.data(), bytes.data(), bytes.size());
  return evaluate_part(*worker.model, test, part);
}

PooledEvaluation::PooledEvaluation(InProcess& workers, const Dataset& test, const SharedBuffer& weights, std::size_t first, std::size_t count)
    : workers_(workers), sums_(count) {
  work_ = workers_.when_idle(count, [this, &test, weights, first](Worker& worker, std::size_t i) { sums_[i] = evaluate_part(worker, weights, test, first + i); });
}

PooledEvaluation::~PooledEvaluation() {
  work_->drop();
  while (!work_->wait_for(std::chrono::seconds(1))) continue;
}

Evaluation PooledEvaluation::result() {
  workers_.await(*work_);
  Evaluation all;
  for (const Evaluation& one : sums_) all.merge(one);
  return all;
}

}  // namespace fl
