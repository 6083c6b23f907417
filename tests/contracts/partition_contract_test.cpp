#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "simulations/partition/partitioner.h"
#include "tests/support/labelled_data.h"

namespace fl {
namespace {

using nlohmann::json;

/// Configurations beyond {"clients": 6}, which every component is tried with.
std::vector<json> configurations() {
  std::vector<json> all;
  for (const std::string& name : partitions().names()) all.push_back({{"name", name}, {"clients", 6}});
  all.push_back({{"name", "iid"}, {"clients", 240}});
  all.push_back({{"name", "iid"}, {"clients", 1000000000}, {"samples_per_client", 25}});
  all.push_back({{"name", "dirichlet"}, {"clients", 40}, {"alpha", 0.01}});
  all.push_back({{"name", "dirichlet"}, {"clients", 24}, {"alpha", 1000}, {"min_samples", 10}});
  all.push_back({{"name", "dirichlet"}, {"clients", 1000000000}, {"samples_per_client", 200}, {"alpha", 0.1}});
  all.push_back({{"name", "shards"}, {"clients", 7}, {"classes_per_client", 3}});
  all.push_back({{"name", "quantity"}, {"clients", 240}});
  all.push_back({{"name", "natural"}});
  return all;
}

/// What every partition promises (simulations/partition/partitioner.h), over 6 classes × 40 examples of 20 users.
class PartitionContract : public ::testing::TestWithParam<json> {
 protected:
  std::unique_ptr<Partition> make(std::uint64_t seed = 1) {
    PartitionContext context;
    context.data = data_;
    context.seed = seed;
    context.path = "partition";
    return partitions().create(GetParam(), "partition", context);
  }

  /// All clients, or some of them where there are very many.
  static std::vector<ClientId> some_clients(const Partition& partition) {
    std::vector<ClientId> clients;
    for (ClientId client = 0; client < std::min<std::uint64_t>(partition.clients(), 300); ++client) clients.push_back(client);
    clients.push_back(partition.clients() - 1);
    return clients;
  }

  std::shared_ptr<const Dataset> data_ = test::labelled_data(6, 40, 20);
};

TEST_P(PartitionContract, HasTheClientsAskedFor) {
  const auto partition = make();
  if (GetParam().contains("clients")) {
    EXPECT_EQ(partition->clients(), GetParam()["clients"].get<std::uint64_t>());
  } else {
    EXPECT_GT(partition->clients(), 0U);
  }
}

TEST_P(PartitionContract, GivesEveryClientExamplesOfTheDataWithoutRepetition) {
  const auto partition = make();
  for (const ClientId client : some_clients(*partition)) {
    const auto shard = partition->shard(client);
    ASSERT_FALSE(shard.empty()) << client;
    ASSERT_LT(*std::max_element(shard.begin(), shard.end()), data_->size()) << client;
    ASSERT_EQ(std::set<std::uint32_t>(shard.begin(), shard.end()).size(), shard.size()) << client;
  }
}

TEST_P(PartitionContract, CountsWhatItGives) {
  const auto partition = make();
  for (const ClientId client : some_clients(*partition)) {
    ASSERT_EQ(partition->shard_size(client), partition->shard(client).size()) << client;
  }
}

TEST_P(PartitionContract, GivesEveryExampleOnceWhenDisjoint) {
  const auto partition = make();
  if (!partition->disjoint()) {
    // Then it must be true that some example has two owners or none.
    std::map<std::uint32_t, int> owners;
    for (const ClientId client : some_clients(*partition)) {
      for (const std::uint32_t example : partition->shard(client)) ++owners[example];
    }
    const bool shared = std::any_of(owners.begin(), owners.end(), [](const auto& owner) { return owner.second > 1; });
    EXPECT_TRUE(shared || owners.size() < data_->size());
    return;
  }
  std::vector<int> owners(data_->size());
  for (ClientId client = 0; client < partition->clients(); ++client) {
    for (const std::uint32_t example : partition->shard(client)) ++owners[example];
  }
  EXPECT_THAT(owners, ::testing::Each(1));
}

TEST_P(PartitionContract, GivesTheSameForEveryCallInAnyOrder) {
  const auto one = make(), other = make();
  auto clients = some_clients(*one);
  std::map<ClientId, std::vector<std::uint32_t>> shards;
  for (const ClientId client : clients) shards[client] = one->shard(client);
  std::reverse(clients.begin(), clients.end());
  for (const ClientId client : clients) {
    ASSERT_EQ(one->shard(client), shards[client]) << client;
    ASSERT_EQ(other->shard(client), shards[client]) << client;
  }
}

TEST_P(PartitionContract, DependsOnTheSeed) {
  // The users that a data set brings are what they are.
  if (GetParam() == json{{"name", "natural"}}) {
    EXPECT_EQ(make(1)->shard(0), make(2)->shard(0));
    return;
  }
  const auto one = make(1), other = make(2);
  bool differs = false;
  for (const ClientId client : some_clients(*one)) differs = differs || one->shard(client) != other->shard(client);
  EXPECT_TRUE(differs);
}

TEST_P(PartitionContract, AnswersSeveralThreadsAtOnce) {
  const auto partition = make();
  const auto clients = some_clients(*partition);
  std::vector<std::vector<std::vector<std::uint32_t>>> answers(3);
  std::vector<std::thread> threads;
  for (auto& answer : answers) {
    threads.emplace_back([&] {
      for (const ClientId client : clients) answer.push_back(partition->shard(client));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answers[0], answers[1]);
  EXPECT_EQ(answers[0], answers[2]);
}

std::string test_name(const ::testing::TestParamInfo<json>& info) {
  return info.param["name"].get<std::string>() + "_" + std::to_string(info.index);
}

INSTANTIATE_TEST_SUITE_P(Registered, PartitionContract, ::testing::ValuesIn(configurations()), test_name);

}  // namespace
}  // namespace fl
