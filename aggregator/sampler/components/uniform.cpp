#include "aggregator/sampler/sampler.h"

namespace fl {
namespace {

/// Every set of min(expected, population) clients is equally likely.
class Uniform final : public Sampler {
 public:
  explicit Uniform(const NoOptions&) {}

  std::vector<ClientId> pick(const Roster& roster, double expected, std::uint32_t, Rng& rng) const override {
    std::vector<ClientId> cohort = pick_uniformly(roster.size, expected, rng);
    for (ClientId& member : cohort) member = roster.at(member);
    return cohort;
  }
  std::uint64_t max_cohort(std::uint64_t population, double expected) const override { return uniform_cohort(population, expected); }
};

FL_REGISTER(samplers(), "uniform", Uniform, NoOptions, "a cohort of fixed size, every one equally likely");

}  // namespace
}  // namespace fl
