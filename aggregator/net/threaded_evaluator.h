#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "aggregator/engine/pending_evaluation.h"
#include "fl_core/ml/dataset.h"

namespace fl {

/// Evaluates on threads of its own, so that the engine and its devices go on meanwhile. One evaluation at a time.
class ThreadedEvaluator {
 public:
  /// One model for each of `workers` threads, made on it when it is needed. `setup` runs first on every thread; may be empty.
  ThreadedEvaluator(std::function<std::unique_ptr<Model>()> make_model, std::shared_ptr<const Dataset> test, std::size_t workers, std::function<void()> setup);

  /// Begins to measure `weights` (float[N]). The evaluation refers to this.
  std::unique_ptr<PendingEvaluation> begin(const SharedBuffer& weights);

 private:
  class Running;

  std::function<std::unique_ptr<Model>()> make_model_;
  std::shared_ptr<const Dataset> test_;
  std::vector<std::unique_ptr<Model>> models_;
  std::function<void()> setup_;
};

}  // namespace fl
