#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fl_core/base/rng.h"
#include "fl_core/config/registry.h"
#include "fl_core/round/types.h"
#include "fl_core/transport/transport.h"

namespace fl {

/// Chooses who takes part in a round. Stateless: everything comes from the round's number and the keyed generator.
class Sampler {
 public:
  virtual ~Sampler() = default;
  /// Distinct clients of the roster, ascending ids. `expected` is the wanted cohort (over-selection included); where a
  /// fixed chance q to take part is promised it is q · roster.size, which need not be whole. Where the roster has no
  /// list of ids, the cost is O(cohort), independent of its size.
  virtual std::vector<ClientId> pick(const Roster& roster, double expected, std::uint32_t round, Rng& rng) const = 0;
  /// The most clients that pick() may return for a roster of at most `population`.
  virtual std::uint64_t max_cohort(std::uint64_t population, double expected) const = 0;
  /// Rounds from one participation of a client to its next, at least: 1 promises nothing.
  virtual std::uint32_t separation() const { return 1; }
};

/// min(count, expected rounded to the nearest) distinct places from {0, …, count - 1}, ascending, every such set equally likely. Floyd's
/// algorithm (Bentley and Floyd 1987, "A sample of brilliance"): time and memory O(result).
std::vector<std::uint64_t> pick_uniformly(std::uint64_t count, double expected, Rng& rng);

/// min(count, expected rounded to the nearest). REQUIRES: expected >= 0.
std::uint64_t uniform_cohort(std::uint64_t count, double expected);

using SamplerRegistry = Registry<Sampler>;
/// Kind "sampler".
SamplerRegistry& samplers();

}  // namespace fl
