#include <algorithm>
#include <optional>
#include <utility>

#include "fl_core/base/error.h"
#include "simulations/partition/components/shard_math.h"

namespace fl {
namespace {

struct DirichletOptions {
  std::int64_t clients = 100;
  double alpha = 0.5;
  std::optional<std::int64_t> samples_per_client;
  std::int64_t min_samples = 1;

  void fields(Fields& f) {
    f.integer("clients", clients, {1, kMaxClients}, "number of clients");
    f.number("alpha", alpha, {1e-4, 1e6}, "concentration: small gives clients of few classes, large is nearly iid");
    f.optional_integer("samples_per_client", samples_per_client, {1, 0xffffffff},
                       "examples each client draws on its own with its own mixture of classes, so that clients share "
                       "examples; null: every example belongs to exactly one client");
    f.integer("min_samples", min_samples, {1, 0xffffffff},
              "smallest shard; what is missing comes from the largest shards (not used with samples_per_client)");
  }
};

/// Disjoint shards (Hsu et al. 2019, arXiv:1909.06335, in the per-class form of Lin et al. 2020, arXiv:2006.07242): the
/// examples of each class are divided in the proportions of one Dirichlet(alpha) sample over the clients.
CutShards cut_by_dirichlet(const DirichletOptions& options, const PartitionContext& context) {
  const ClassIndex index(*context.data);
  const auto clients = static_cast<std::size_t>(options.clients);
  Rng rng(context.seed, Purpose::partition);
  const std::vector<bool> everyone(clients, true);
  std::vector<std::vector<std::uint32_t>> shards(clients);
  for (std::size_t label = 0; label < index.classes(); ++label) {
    if (index.size(label) == 0) continue;
    std::vector<std::uint32_t> examples(index.examples(label).begin(), index.examples(label).end());
    rng.shuffle(examples);
    const auto weights = relative_weights(log_gamma_draws(clients, options.alpha, rng), everyone);
    const auto sizes = split_in_proportion(examples.size(), weights);
    auto from = examples.begin();
    for (std::size_t client = 0; client < clients; ++client) {
      const auto to = from + static_cast<std::ptrdiff_t>(sizes[client]);
      shards[client].insert(shards[client].end(), from, to);
      from = to;
    }
  }
  std::vector<std::uint32_t> sizes;
  for (const auto& shard : shards) sizes.push_back(static_cast<std::uint32_t>(shard.size()));
  for (const auto& [from, to] : raise_to_minimum(sizes, static_cast<std::size_t>(options.min_samples))) {
    // A random one: the last would always be of the donor's highest class.
    std::swap(shards[from][rng.below(shards[from].size())], shards[from].back());
    shards[to].push_back(shards[from].back());
    shards[from].pop_back();
  }
  CutShards cut;
  cut.offsets.push_back(0);
  cut.order.reserve(context.data->size());
  for (auto& shard : shards) {
    rng.shuffle(shard);
    cut.order.insert(cut.order.end(), shard.begin(), shard.end());
    cut.offsets.push_back(static_cast<std::uint32_t>(cut.order.size()));
  }
  return cut;
}

/// Draws `samples` examples without repetition, their classes one by one from one Dirichlet(alpha) mixture over the
/// classes that the data have; a class that is used up leaves the mixture.
std::vector<std::uint32_t> draw_mixture(const ClassIndex& index, double alpha, std::size_t samples, Rng& rng) {
  std::vector<bool> available(index.classes());
  for (std::size_t label = 0; label < available.size(); ++label) available[label] = index.size(label) > 0;
  const std::vector<double> logs = log_gamma_draws(index.classes(), alpha, rng);
  std::vector<double> running(logs.size());
  const auto mix = [&] {
    const std::vector<double> weights = relative_weights(logs, available);
    double sum = 0;
    for (std::size_t i = 0; i < weights.size(); ++i) running[i] = sum += weights[i];
  };
  mix();
  std::vector<std::size_t> counts(index.classes());
  for (std::size_t drawn = 0; drawn < samples; ++drawn) {
    const auto found = std::upper_bound(running.begin(), running.end(), rng.uniform() * running.back());
    // uniform() × sum may round up to the sum; the last class with any weight is meant then.
    const auto at = found != running.end() ? found : std::lower_bound(running.begin(), running.end(), running.back());
    const auto label = static_cast<std::size_t>(at - running.begin());
    if (++counts[label] < index.size(label)) continue;
    available[label] = false;
    if (drawn + 1 < samples) mix();
  }
  std::vector<std::uint32_t> shard;
  shard.reserve(samples);
  for (std::size_t label = 0; label < counts.size(); ++label) {
    const auto examples = index.examples(label);
    for (const std::uint32_t i : draw_distinct(counts[label], examples.size(), rng)) shard.push_back(examples[i]);
  }
  rng.shuffle(shard);
  return shard;
}

class Dirichlet final : public Partition {
 public:
  Dirichlet(const DirichletOptions& options, const PartitionContext& context)
      : clients_(static_cast<std::uint64_t>(options.clients)), alpha_(options.alpha), seed_(context.seed) {
    if (options.samples_per_client) {
      check_samples_per_client(context, *options.samples_per_client);
      samples_ = static_cast<std::size_t>(*options.samples_per_client);
      index_.emplace(*context.data);
      return;
    }
    check_enough_examples(context, options.clients, options.min_samples, "min_samples",
                          "set samples_per_client to let clients share examples, or use fewer clients");
    cut_ = cut_by_dirichlet(options, context);
  }

  std::uint64_t clients() const override { return clients_; }
  bool disjoint() const override { return !samples_; }

  std::vector<std::uint32_t> shard(ClientId client) const override {
    FL_CHECK(client < clients_, "the partition has no such client");
    if (!samples_) return cut_.shard(client);
    Rng rng(seed_, Purpose::partition, 0, client);
    return draw_mixture(*index_, alpha_, *samples_, rng);
  }

  std::size_t shard_size(ClientId client) const override { return samples_ ? *samples_ : cut_.size(client); }

 private:
  std::uint64_t clients_;
  double alpha_;
  std::uint64_t seed_;
  std::optional<std::size_t> samples_;
  std::optional<ClassIndex> index_;
  CutShards cut_;
};

FL_REGISTER(partitions(), "dirichlet", Dirichlet, DirichletOptions,
            "clients differ in their classes by Dirichlet(alpha) proportions");

}  // namespace
}  // namespace fl
