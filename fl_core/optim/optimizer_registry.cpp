#include "fl_core/optim/optimizer.h"

namespace fl {

OptimizerRegistry& optimizers() {
  static OptimizerRegistry registry("optimizer");
  return registry;
}

}  // namespace fl
