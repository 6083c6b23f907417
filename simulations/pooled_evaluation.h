#pragma once

#include <vector>

#include "aggregator/engine/pending_evaluation.h"
#include "fl_core/ml/dataset.h"
#include "simulations/in_process.h"

namespace fl {

/// Puts `weights` (float[N]) into the worker's model and measures them on one part of the test set. Throws ProtocolError when their size is another.
Evaluation evaluate_part(Worker& worker, const SharedBuffer& weights, const Dataset& test, std::size_t part);

/// An evaluation by the workers of a simulation that have no job.
class PooledEvaluation final : public PendingEvaluation {
 public:
  /// Begins with parts [first, first + count) of the test set. References are borrowed.
  PooledEvaluation(InProcess& workers, const Dataset& test, const SharedBuffer& weights, std::size_t first, std::size_t count);
  ~PooledEvaluation() override;

  bool ready() override { return work_->over(); }
  Evaluation result() override;

 private:
  InProcess& workers_;
  std::vector<Evaluation> sums_;  ///< a part
  std::shared_ptr<SpareWork> work_;
};

}  // namespace fl
