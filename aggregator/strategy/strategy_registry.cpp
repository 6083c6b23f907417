#include "aggregator/strategy/strategy.h"

namespace fl {

StrategyRegistry& strategies() {
  static StrategyRegistry registry("strategy");
  return registry;
}

}  // namespace fl
