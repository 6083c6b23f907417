#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/config/registry.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/round/types.h"

namespace fl {

/// What a strategy is built for.
struct StrategyContext {
  SharedLayout layout;
  std::uint64_t max_updates = 1;  ///< the most updates that one round may add
  int bound_bits = ExactSum::kDefaultBoundBits;
};

/// How updates become the next model. The engine's thread alone calls it.
class Strategy {
 public:
  virtual ~Strategy() = default;
  /// Adds one update, in any order. Nothing is added unless the result is ExactSumError::none.
  virtual ExactSumError add(std::span<const float> delta, std::uint32_t weight) = 0;
  /// add() of each; errors[i] is what became of terms[i]. Updates that wait together are folded in one pass over the sum.
  virtual void add_all(std::span<const ExactTerm> terms, std::span<ExactSumError> errors);
  /// Adds the sum of `terms` updates of this weight in all, which nobody saw one by one: integers as ExactSum::add_sum() takes them.
  /// REQUIRES: not needs_individual_updates().
  virtual void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms, std::uint64_t weight);
  /// Consumes what was added. REQUIRES: at least one add.
  virtual Aggregate finish() = 0;
  /// Forgets what was added (an abandoned round).
  virtual void discard() = 0;
  /// Moves the global model.
  virtual void step(ParameterVector& global, const Aggregate& aggregate) = 0;
  /// Server state by name (optimizer moments), for checkpoints. Each is valid memory of fixed length once built.
  virtual std::vector<std::pair<std::string, std::span<float>>> state() { return {}; }
  virtual std::uint64_t steps() const { return 0; }
  virtual void set_steps(std::uint64_t) {}
  /// Whether updates must be kept one by one (median, Krum): excludes secure aggregation.
  virtual bool needs_individual_updates() const { return false; }
};

using StrategyRegistry = Registry<Strategy, const StrategyContext&>;
/// Kind "strategy".
StrategyRegistry& strategies();

}  // namespace fl
