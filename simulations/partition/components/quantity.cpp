#include <cmath>

#include "simulations/partition/components/shard_math.h"

namespace fl {
namespace {

struct QuantityOptions {
  std::int64_t clients = 100;
  double sigma = 1;
  std::int64_t min_samples = 1;

  void fields(Fields& f) {
    f.integer("clients", clients, {1, kMaxClients}, "number of clients");
    f.number("sigma", sigma, {0, 10}, "standard deviation of the logarithm of the shard sizes; 0 gives equal sizes");
    f.integer("min_samples", min_samples, {1, 0xffffffff}, "smallest shard; what is missing comes from the largest");
  }
};

/// Disjoint shards with the same content on average but log-normal sizes: in proportion to exp(sigma · N(0, 1)).
class Quantity final : public Partition {
 public:
  Quantity(const QuantityOptions& options, const PartitionContext& context) {
    check_enough_examples(context, options.clients, options.min_samples, "min_samples", "use fewer clients");
    Rng rng(context.seed, Purpose::partition);
    cut_.order = shuffled_indices(context.data->size(), rng);
    std::vector<double> weights(static_cast<std::size_t>(options.clients));
    for (double& weight : weights) weight = std::exp(options.sigma * rng.normal());
    std::vector<std::uint32_t> sizes = split_in_proportion(context.data->size(), weights);
    raise_to_minimum(sizes, static_cast<std::size_t>(options.min_samples));
    cut_.offsets.push_back(0);
    for (const std::uint32_t size : sizes) cut_.offsets.push_back(cut_.offsets.back() + size);
  }

  std::uint64_t clients() const override { return cut_.clients(); }
  bool disjoint() const override { return true; }
  std::vector<std::uint32_t> shard(ClientId client) const override { return cut_.shard(client); }
  std::size_t shard_size(ClientId client) const override { return cut_.size(client); }

 private:
  CutShards cut_;
};

FL_REGISTER(partitions(), "quantity", Quantity, QuantityOptions,
            "clients differ in how much they have: log-normal sizes, the same mixture of classes");

}  // namespace
}  // namespace fl
