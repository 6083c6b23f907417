#include "simulations/partition/components/shard_math.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <queue>
#include <unordered_map>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {

std::size_t CutShards::size(ClientId client) const {
  FL_CHECK(client < clients(), "the partition has no such client");
  return offsets[client + 1] - offsets[client];
}

std::vector<std::uint32_t> CutShards::shard(ClientId client) const {
  const auto examples = std::span(order).subspan(offsets[client], size(client));
  return {examples.begin(), examples.end()};
}

std::vector<std::uint32_t> shuffled_indices(std::size_t count, Rng& rng) {
  std::vector<std::uint32_t> indices(count);
  std::iota(indices.begin(), indices.end(), 0U);
  rng.shuffle(indices);
  return indices;
}

std::vector<std::uint32_t> draw_distinct(std::size_t count, std::size_t bound, Rng& rng) {
  FL_CHECK(count <= bound, "more different numbers than there are");
  // The first `count` steps of Fisher-Yates over an array of which only the places that moved are stored.
  std::unordered_map<std::size_t, std::size_t> moved;
  moved.reserve(count);
  const auto at = [&](std::size_t place) {
    const auto found = moved.find(place);
    return found == moved.end() ? place : found->second;
  };
  std::vector<std::uint32_t> drawn(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t other = i + rng.below(bound - i);
    drawn[i] = static_cast<std::uint32_t>(at(other));
    moved[other] = at(i);
  }
  return drawn;
}

ClassIndex::ClassIndex(const Dataset& data) : order(data.size()) {
  const auto labels = data.labels();
  starts.assign(static_cast<std::size_t>(data.shape().classes) + 1, 0);
  for (const std::int32_t label : labels) ++starts[static_cast<std::size_t>(label) + 1];
  std::partial_sum(starts.begin(), starts.end(), starts.begin());
  std::vector<std::uint32_t> next(starts.begin(), starts.end() - 1);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    order[next[static_cast<std::size_t>(labels[i])]++] = static_cast<std::uint32_t>(i);
  }
}

std::vector<std::uint32_t> split_in_proportion(std::size_t total, std::span<const double> weights) {
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  FL_CHECK(sum > 0 && std::isfinite(sum), "proportions need a positive finite sum");
  std::vector<std::uint32_t> parts(weights.size());
  double running = 0;
  std::size_t cut = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    running += weights[i];
    // The last cut is exact whatever the rounding of the sum, and no cut may pass it.
    const double share = std::floor(running / sum * static_cast<double>(total) + 0.5);
    const std::size_t next =
        i + 1 == weights.size() ? total : std::clamp(static_cast<std::size_t>(share), cut, total);
    parts[i] = static_cast<std::uint32_t>(next - cut);
    cut = next;
  }
  return parts;
}

std::vector<double> log_gamma_draws(std::size_t count, double shape, Rng& rng) {
  std::vector<double> logs(count);
  for (double& log : logs) {
    // Gamma(a) = Gamma(a + 1) · U^(1/a) (Marsaglia and Tsang 2000, §6).
    log = std::log(rng.gamma(shape + 1)) + std::log(1 - rng.uniform()) / shape;
  }
  return logs;
}

std::vector<double> relative_weights(std::span<const double> logs, const std::vector<bool>& keep) {
  double largest = -std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < logs.size(); ++i) {
    if (keep[i]) largest = std::max(largest, logs[i]);
  }
  std::vector<double> weights(logs.size(), 0);
  for (std::size_t i = 0; i < logs.size(); ++i) {
    if (keep[i]) weights[i] = std::exp(logs[i] - largest);
  }
  return weights;
}

std::vector<std::pair<std::uint32_t, std::uint32_t>> raise_to_minimum(std::span<std::uint32_t> sizes, std::size_t minimum) {
  using Donor = std::pair<std::uint32_t, std::uint32_t>;
  const auto poorer = [](const Donor& a, const Donor& b) {
    return a.first != b.first ? a.first < b.first : a.second > b.second;
  };
  std::priority_queue<Donor, std::vector<Donor>, decltype(poorer)> donors(poorer);
  for (std::uint32_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > minimum) donors.emplace(sizes[i], i);
  }
  std::vector<std::pair<std::uint32_t, std::uint32_t>> moves;
  for (std::uint32_t to = 0; to < sizes.size(); ++to) {
    while (sizes[to] < minimum) {
      FL_CHECK(!donors.empty(), "nobody can give an example");
      const std::uint32_t from = donors.top().second;
      donors.pop();
      --sizes[from];
      ++sizes[to];
      if (sizes[from] > minimum) donors.emplace(sizes[from], from);
      moves.emplace_back(from, to);
    }
  }
  return moves;
}

void check_enough_examples(const PartitionContext& context, std::int64_t clients, std::int64_t each, const char* key,
                           const char* remedy) {
  const auto examples = static_cast<std::int64_t>(context.data->size());
  if (clients <= examples / each) return;
  const std::string times = each == 1 ? "" : " for " + std::string(key) + " = " + std::to_string(each);
  bad_value(join_path(context.path, "clients"), clients,
            "at most " + std::to_string(examples / each) + times + " (the training set has " + std::to_string(examples) +
                " examples); " + remedy);
}

void check_samples_per_client(const PartitionContext& context, std::int64_t samples_per_client) {
  if (static_cast<std::uint64_t>(samples_per_client) <= context.data->size()) return;
  bad_value(join_path(context.path, "samples_per_client"), samples_per_client,
            "at most " + std::to_string(context.data->size()) + ", the examples of the training set");
}

}  // namespace fl
