#pragma once

#include <functional>
#include <memory>

#include "fl_core/base/buffer.h"
#include "fl_core/ml/model.h"

namespace fl {

/// An evaluation on the test set that was begun, and goes on while the next round does. The engine's thread alone calls it.
class PendingEvaluation {
 public:
  /// Gives it up when it goes on still: returns when nothing of it is being computed any more.
  virtual ~PendingEvaluation() = default;
  /// Whether result() returns or throws at once.
  virtual bool ready() = 0;
  /// Waits for the sums. Throws what went wrong, and Interrupted where a run can be asked to stop meanwhile. Call it once.
  virtual Evaluation result() = 0;
};

/// Begins to measure `weights` (float[N]) and returns at once.
using BeginEvaluation = std::function<std::unique_ptr<PendingEvaluation>(const SharedBuffer& weights)>;

}  // namespace fl
