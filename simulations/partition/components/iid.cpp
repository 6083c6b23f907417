#include <optional>

#include "fl_core/base/error.h"
#include "simulations/partition/components/shard_math.h"

namespace fl {
namespace {

struct IidOptions {
  std::int64_t clients = 100;
  std::optional<std::int64_t> samples_per_client;

  void fields(Fields& f) {
    f.integer("clients", clients, {1, kMaxClients}, "number of clients");
    f.optional_integer("samples_per_client", samples_per_client, {1, 0xffffffff},
                       "examples each client draws on its own, so that clients share examples; null: every example "
                       "belongs to exactly one client");
  }
};

/// Shards that are random subsets of the whole: disjoint ones whose sizes differ by at most one, or (samples_per_client)
/// ones that each client draws from its own stream when asked, so that a million clients cost nothing.
class Iid final : public Partition {
 public:
  Iid(const IidOptions& options, const PartitionContext& context)
      : clients_(static_cast<std::uint64_t>(options.clients)), seed_(context.seed), examples_(context.data->size()) {
    if (options.samples_per_client) {
      check_samples_per_client(context, *options.samples_per_client);
      samples_ = static_cast<std::size_t>(*options.samples_per_client);
      return;
    }
    check_enough_examples(context, options.clients, 1, "",
                          "set samples_per_client to let clients share examples, or use fewer clients");
    Rng rng(seed_, Purpose::partition);
    cut_.order = shuffled_indices(examples_, rng);
    for (std::uint64_t client = 0; client <= clients_; ++client) {
      cut_.offsets.push_back(static_cast<std::uint32_t>(client * examples_ / clients_));
    }
  }

  std::uint64_t clients() const override { return clients_; }
  bool disjoint() const override { return !samples_; }

  std::vector<std::uint32_t> shard(ClientId client) const override {
    FL_CHECK(client < clients_, "the partition has no such client");
    if (!samples_) return cut_.shard(client);
    Rng rng(seed_, Purpose::partition, 0, client);
    return draw_distinct(*samples_, examples_, rng);
  }

  std::size_t shard_size(ClientId client) const override { return samples_ ? *samples_ : cut_.size(client); }

 private:
  std::uint64_t clients_;
  std::uint64_t seed_;
  std::size_t examples_;
  std::optional<std::size_t> samples_;
  CutShards cut_;
};

FL_REGISTER(partitions(), "iid", Iid, IidOptions, "every client gets a random sample of the whole data set");

}  // namespace
}  // namespace fl
