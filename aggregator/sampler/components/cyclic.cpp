#include <algorithm>

#include "aggregator/sampler/sampler.h"

namespace fl {
namespace {

struct CyclicOptions {
  std::int64_t separation = 2;

  void fields(Fields& f) {
    f.integer("separation", separation, {1, 1'000'000}, "rounds from one participation of a client to its next, at least", "rounds");
  }
};

/// Clients are split by id into `separation` groups, and round t asks only those with id = t modulo separation: a cohort of
/// fixed size, every one of that group equally likely (the whole group where it is smaller). So nobody takes part in two
/// rounds that are less than `separation` apart, whoever comes and goes: the limit that DP-FTRL's proofs count on.
class Cyclic final : public Sampler {
 public:
  explicit Cyclic(const CyclicOptions& options) : separation_(static_cast<std::uint32_t>(options.separation)) {}

  std::vector<ClientId> pick(const Roster& roster, double expected, std::uint32_t round, Rng& rng) const override {
    const std::uint64_t group = round % separation_;
    if (!roster.ids.empty()) return of_listed(roster, group, expected, rng);
    const std::uint64_t members = roster.size > group ? (roster.size - group - 1) / separation_ + 1 : 0;
    std::vector<ClientId> cohort = pick_uniformly(members, expected, rng);
    for (ClientId& member : cohort) member = member * separation_ + group;
    return cohort;
  }
  /// Ids may all be of one group.
  std::uint64_t max_cohort(std::uint64_t population, double expected) const override { return uniform_cohort(population, expected); }
  std::uint32_t separation() const override { return separation_; }

 private:
  std::vector<ClientId> of_listed(const Roster& roster, std::uint64_t group, double expected, Rng& rng) const {
    std::vector<ClientId> members;
    std::copy_if(roster.ids.begin(), roster.ids.end(), std::back_inserter(members),
                 [&](ClientId id) { return id % separation_ == group; });
    std::vector<ClientId> cohort = pick_uniformly(members.size(), expected, rng);
    for (ClientId& member : cohort) member = members[member];
    return cohort;
  }

  std::uint32_t separation_;
};

FL_REGISTER(samplers(), "cyclic", Cyclic, CyclicOptions, "a cohort of fixed size from the group whose turn it is: every client at most once in `separation` rounds");

}  // namespace
}  // namespace fl
