#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "fl_core/base/rng.h"
#include "fl_core/round/types.h"
#include "simulations/partition/partitioner.h"

namespace fl {

/// Ids of clients lie below this.
inline constexpr std::int64_t kMaxClients = 1'000'000'000;

/// Every example in one array that is cut between clients: client c owns order[offsets[c]] … order[offsets[c + 1] - 1].
struct CutShards {
  std::vector<std::uint32_t> order;
  std::vector<std::uint32_t> offsets;  ///< one more than clients

  std::size_t clients() const { return offsets.size() - 1; }
  std::size_t size(ClientId client) const;
  std::vector<std::uint32_t> shard(ClientId client) const;
};

/// 0 … count - 1 in random order.
std::vector<std::uint32_t> shuffled_indices(std::size_t count, Rng& rng);

/// `count` different numbers below `bound`, in random order; O(count) time and memory. REQUIRES: count <= bound.
std::vector<std::uint32_t> draw_distinct(std::size_t count, std::size_t bound, Rng& rng);

/// Examples grouped by label: class k owns order[starts[k]] … order[starts[k + 1] - 1], in rising order.
struct ClassIndex {
  explicit ClassIndex(const Dataset& data);

  std::size_t classes() const { return starts.size() - 1; }
  std::size_t size(std::size_t label) const { return starts[label + 1] - starts[label]; }
  std::span<const std::uint32_t> examples(std::size_t label) const {
    return std::span(order).subspan(starts[label], size(label));
  }

  std::vector<std::uint32_t> order;
  std::vector<std::uint32_t> starts;
};

/// Cuts `total` into parts in proportion to `weights` by rounding the running sum, so that they add up exactly.
/// REQUIRES: weights finite, not negative, not all 0.
std::vector<std::uint32_t> split_in_proportion(std::size_t total, std::span<const double> weights);

/// Logarithms of Gamma(shape, 1) draws: a Dirichlet sample before it is normalised. In logarithms because for a small
/// shape every draw may be below the smallest double.
std::vector<double> log_gamma_draws(std::size_t count, double shape, Rng& rng);
/// exp(logs - largest): in proportion to the draws, the largest is 1. Entries where `keep` is false become 0.
std::vector<double> relative_weights(std::span<const double> logs, const std::vector<bool>& keep);

/// Raises every size to `minimum` by taking one at a time from the then largest (the lowest index among equals).
/// Returns the moves (from, to) in order. REQUIRES: minimum × sizes.size() <= the sum.
std::vector<std::pair<std::uint32_t, std::uint32_t>> raise_to_minimum(std::span<std::uint32_t> sizes, std::size_t minimum);

/// Throws ConfigError unless there are enough examples for `clients` × `each`. `key` names the option `each` in the
/// error; `remedy` ends it.
void check_enough_examples(const PartitionContext& context, std::int64_t clients, std::int64_t each, const char* key,
                           const char* remedy);

/// Throws ConfigError where one client asks for more examples than there are.
void check_samples_per_client(const PartitionContext& context, std::int64_t samples_per_client);

}  // namespace fl
