#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "simulations/partition/components/shard_math.h"

namespace fl {
namespace {

struct NaturalOptions {
  std::optional<std::int64_t> clients;

  void fields(Fields& f) {
    f.optional_integer("clients", clients, {1, kMaxClients}, "how many users to take, drawn at random; null: all");
  }
};

/// The users that the data set brings, one client each.
class Natural final : public Partition {
 public:
  Natural(const NaturalOptions& options, const PartitionContext& context) : data_(context.data) {
    const auto& users = data_->users();
    if (users.empty()) {
      throw ConfigError(join_path(context.path, "name") +
                        ": got \"natural\", but the data set has no users of its own; use the data set 'leaf', or a "
                        "partition that makes clients (iid, dirichlet, shards, quantity)");
    }
    if (options.clients) {
      if (static_cast<std::uint64_t>(*options.clients) > users.size()) {
        bad_value(join_path(context.path, "clients"), *options.clients,
                  "at most " + std::to_string(users.size()) + ", the users of the data set; null takes all");
      }
      Rng rng(context.seed, Purpose::partition);
      chosen_ = draw_distinct(static_cast<std::size_t>(*options.clients), users.size(), rng);
    } else {
      for (std::uint32_t user = 0; user < users.size(); ++user) chosen_.push_back(user);
    }
    std::size_t covered = 0;
    for (const std::uint32_t user : chosen_) covered += users[user].size();
    disjoint_ = covered == data_->size();
  }

  std::uint64_t clients() const override { return chosen_.size(); }
  bool disjoint() const override { return disjoint_; }
  std::vector<std::uint32_t> shard(ClientId client) const override { return examples(client); }
  std::size_t shard_size(ClientId client) const override { return examples(client).size(); }

 private:
  const std::vector<std::uint32_t>& examples(ClientId client) const {
    FL_CHECK(client < chosen_.size(), "the partition has no such client");
    return data_->users()[chosen_[client]];
  }

  std::shared_ptr<const Dataset> data_;
  std::vector<std::uint32_t> chosen_;
  bool disjoint_ = false;  ///< users never share examples, so it is a matter of covering all
};

FL_REGISTER(partitions(), "natural", Natural, NaturalOptions, "one client for each user that the data set names (LEAF)");

}  // namespace
}  // namespace fl
