#include "aggregator/strategy/strategy.h"

#include "fl_core/base/error.h"

namespace fl {

void Strategy::add_sum(std::span<const std::int64_t>, std::uint64_t, std::uint64_t) { FL_CHECK(false, "a strategy that needs individual updates got their sum"); }

StrategyRegistry& strategies() {
  static StrategyRegistry registry("strategy");
  return registry;
}

}  // namespace fl
