#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fl_core/base/rng.h"
#include "fl_core/config/registry.h"
#include "fl_core/round/types.h"

namespace fl {

/// Chooses who takes part in a round. Stateless: everything comes from the keyed generator.
class Sampler {
 public:
  virtual ~Sampler() = default;
  /// Distinct clients from {0, …, population - 1}, ascending. `expected` is the wanted cohort (over-selection included).
  /// Cost O(cohort), independent of the population.
  virtual std::vector<ClientId> pick(std::uint64_t population, std::uint64_t expected, Rng& rng) const = 0;
  /// The most clients that pick() may return.
  virtual std::uint64_t max_cohort(std::uint64_t population, std::uint64_t expected) const = 0;
};

using SamplerRegistry = Registry<Sampler>;
/// Kind "sampler".
SamplerRegistry& samplers();

}  // namespace fl
