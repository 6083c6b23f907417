#include "aggregator/strategy/strategy.h"

#include "fl_core/base/error.h"

namespace fl {

void Strategy::add_sum(std::span<const std::int64_t>, std::uint64_t, std::uint64_t) { FL_CHECK(false, "a strategy that needs individual updates got their sum"); }

void Strategy::add_all(std::span<const ExactTerm> terms, std::span<ExactSumError> errors) {
  for (std::size_t i = 0; i < terms.size(); ++i) errors[i] = add(terms[i].values, terms[i].weight);
}

StrategyRegistry& strategies() {
  static StrategyRegistry registry("strategy");
  return registry;
}

}  // namespace fl
