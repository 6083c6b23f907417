#pragma once

#include <span>
#include <utility>

#include "aggregator/strategy/strategy.h"
#include "fl_core/base/error.h"

namespace fl {

/// The half of a linear strategy that does not depend on how the model moves: the exact weighted mean of the updates.
/// Memory: 8 bytes a parameter, for any number of updates; the mean depends neither on their order nor on threads.
class MeanStrategy : public Strategy {
 public:
  explicit MeanStrategy(const StrategyContext& context)
      : layout_(context.layout), sum_(layout_->size(), context.max_updates, context.bound_bits) {}

  ExactSumError add(std::span<const float> delta, std::uint32_t weight) override { return sum_.add(delta, weight); }
  void add_all(std::span<const ExactTerm> terms, std::span<ExactSumError> errors) override { sum_.add_all(terms, errors); }

  void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms, std::uint64_t weight) override { sum_.add_sum(sum, terms, weight); }

  Aggregate finish() override {
    FL_CHECK(sum_.terms() > 0, "Strategy::finish: nothing was added");
    Aggregate aggregate;
    aggregate.mean_delta = ParameterVector(layout_);
    aggregate.total_weight = sum_.total_weight();
    aggregate.contributors = sum_.terms();
    sum_.take_mean(aggregate.mean_delta.values());
    return aggregate;
  }
  void discard() override { sum_.clear(); }

 protected:
  const Layout& layout() const { return *layout_; }

 private:
  SharedLayout layout_;
  ExactSum sum_;
};

}  // namespace fl
