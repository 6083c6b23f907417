#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "aggregator/sampler/sampler.h"

namespace fl {
namespace {

/// Every set of min(expected, population) clients is equally likely. Floyd's algorithm (Bentley and Floyd 1987, "A
/// sample of brilliance"): time and memory O(cohort).
class Uniform final : public Sampler {
 public:
  explicit Uniform(const NoOptions&) {}

  std::vector<ClientId> pick(std::uint64_t population, std::uint64_t expected, Rng& rng) const override {
    const std::uint64_t size = max_cohort(population, expected);
    std::vector<ClientId> cohort(size);
    if (size == population) {
      std::iota(cohort.begin(), cohort.end(), ClientId{0});
      return cohort;
    }
    std::unordered_set<ClientId> taken;
    taken.reserve(size);
    for (std::uint64_t k = 0; k < size; ++k) {
      const ClientId newest = population - size + k;
      const ClientId drawn = rng.below(newest + 1);
      cohort[k] = taken.insert(drawn).second ? drawn : newest;
      taken.insert(cohort[k]);
    }
    std::sort(cohort.begin(), cohort.end());
    return cohort;
  }
  std::uint64_t max_cohort(std::uint64_t population, std::uint64_t expected) const override {
    return std::min(population, expected);
  }
};

FL_REGISTER(samplers(), "uniform", Uniform, NoOptions, "a cohort of fixed size, every one equally likely");

}  // namespace
}  // namespace fl
