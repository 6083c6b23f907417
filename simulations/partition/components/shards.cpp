#include "fl_core/base/error.h"
#include "simulations/partition/components/shard_math.h"

namespace fl {
namespace {

struct ShardsOptions {
  std::int64_t clients = 100;
  std::int64_t classes_per_client = 2;

  void fields(Fields& f) {
    f.integer("clients", clients, {1, kMaxClients}, "number of clients");
    f.integer("classes_per_client", classes_per_client, {1, 0xffffffff}, "pieces of the sorted data that each client gets");
  }
};

/// McMahan et al. 2017 (arXiv:1602.05629, §3): examples sorted by label are cut into clients × classes_per_client pieces
/// of equal size (± 1), and each client is dealt classes_per_client of them. Where the classes are as long as a whole
/// number of pieces, no client sees more classes than that.
class Shards final : public Partition {
 public:
  Shards(const ShardsOptions& options, const PartitionContext& context)
      : clients_(static_cast<std::uint64_t>(options.clients)), each_(static_cast<std::size_t>(options.classes_per_client)) {
    check_enough_examples(context, options.clients, options.classes_per_client, "classes_per_client",
                          "use fewer clients or classes_per_client");
    Rng rng(context.seed, Purpose::partition);
    ClassIndex index(*context.data);
    order_ = std::move(index.order);
    for (std::size_t label = 0; label < index.classes(); ++label) {
      rng.shuffle(std::span(order_).subspan(index.starts[label], index.size(label)));
    }
    dealt_ = shuffled_indices(clients_ * each_, rng);
  }

  std::uint64_t clients() const override { return clients_; }
  bool disjoint() const override { return true; }

  std::vector<std::uint32_t> shard(ClientId client) const override {
    std::vector<std::uint32_t> examples;
    examples.reserve(shard_size(client));
    for (std::size_t i = client * each_; i < (client + 1) * each_; ++i) {
      const std::size_t piece = dealt_[i];
      for (std::size_t at = start(piece); at < start(piece + 1); ++at) examples.push_back(order_[at]);
    }
    return examples;
  }

  std::size_t shard_size(ClientId client) const override {
    FL_CHECK(client < clients_, "the partition has no such client");
    std::size_t size = 0;
    for (std::size_t i = client * each_; i < (client + 1) * each_; ++i) size += start(dealt_[i] + std::size_t{1}) - start(dealt_[i]);
    return size;
  }

 private:
  /// Both factors are below 2^32.
  std::size_t start(std::size_t piece) const { return piece * order_.size() / dealt_.size(); }

  std::uint64_t clients_;
  std::size_t each_;
  std::vector<std::uint32_t> order_;  ///< examples by label
  std::vector<std::uint32_t> dealt_;  ///< pieces in the order in which they are dealt
};

FL_REGISTER(partitions(), "shards", Shards, ShardsOptions,
            "pathological: the data sorted by label are cut into pieces, each client gets a few");

}  // namespace
}  // namespace fl
