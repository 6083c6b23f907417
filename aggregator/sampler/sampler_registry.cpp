#include <algorithm>
#include <cmath>
#include <numeric>
#include <unordered_set>

#include "aggregator/sampler/sampler.h"

namespace fl {

std::uint64_t uniform_cohort(std::uint64_t count, double expected) {
  return expected >= static_cast<double>(count) ? count : static_cast<std::uint64_t>(std::llround(expected));
}

std::vector<std::uint64_t> pick_uniformly(std::uint64_t count, double expected, Rng& rng) {
  const std::uint64_t size = uniform_cohort(count, expected);
  std::vector<std::uint64_t> places(size);
  if (size == count) {
    std::iota(places.begin(), places.end(), std::uint64_t{0});
    return places;
  }
  std::unordered_set<std::uint64_t> taken;
  taken.reserve(size);
  for (std::uint64_t k = 0; k < size; ++k) {
    const std::uint64_t newest = count - size + k;
    const std::uint64_t drawn = rng.below(newest + 1);
    places[k] = taken.insert(drawn).second ? drawn : newest;
    taken.insert(places[k]);
  }
  std::sort(places.begin(), places.end());
  return places;
}

SamplerRegistry& samplers() {
  static SamplerRegistry registry("sampler");
  return registry;
}

}  // namespace fl
