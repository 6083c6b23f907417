#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "simulations/partition/components/shard_math.h"
#include "simulations/partition/partitioner.h"
#include "tests/support/labelled_data.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using test::labelled_data;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::unique_ptr<Partition> make(const json& component, std::shared_ptr<const Dataset> data, std::uint64_t seed = 1) {
  PartitionContext context;
  context.data = std::move(data);
  context.seed = seed;
  context.path = "partition";
  return partitions().create(component, "partition", context);
}

std::string error_of_making(const json& component, std::shared_ptr<const Dataset> data) {
  return error_of([&] { make(component, std::move(data)); });
}

/// How many examples of each class a shard has.
std::vector<double> class_counts(const Dataset& data, const std::vector<std::uint32_t>& shard) {
  std::vector<double> counts(static_cast<std::size_t>(data.shape().classes));
  for (const std::uint32_t i : shard) ++counts[static_cast<std::size_t>(data.labels()[i])];
  return counts;
}

TEST(ShardMath, SplitsInProportionExactly) {
  EXPECT_THAT(split_in_proportion(10, std::vector<double>{1, 1, 2}), ElementsAre(3, 2, 5));  // cuts at 2.5 -> 3, 5, 10
  EXPECT_THAT(split_in_proportion(7, std::vector<double>{0, 1, 0}), ElementsAre(0, 7, 0));
  EXPECT_THAT(split_in_proportion(1000, std::vector<double>{0.1, 0.2, 0.7}), ElementsAre(100, 200, 700));
}

TEST(ShardMath, RaisesToTheMinimumFromTheLargest) {
  std::vector<std::uint32_t> sizes = {0, 5, 1, 4};
  const auto moves = raise_to_minimum(sizes, 2);
  // Client 0 takes from 1 (5 -> 4), then from 1 (the lower of 4 and 4); client 2 from 3.
  EXPECT_THAT(sizes, ElementsAre(2, 3, 2, 3));
  EXPECT_THAT(moves, ElementsAre(std::pair(1U, 0U), std::pair(1U, 0U), std::pair(3U, 2U)));
}

TEST(ShardMath, DrawsDistinctNumbersUniformly) {
  // 20 000 draws of 3 of 10: each number is drawn 6000 times and first 2000 times, with deviations √(20000 · 0.3 · 0.7)
  // = 65 and √(20000 · 0.1 · 0.9) = 42; 4.5 of them.
  std::vector<int> drawn(10), first(10);
  Rng rng(1, Purpose::partition);
  for (int i = 0; i < 20000; ++i) {
    const auto numbers = draw_distinct(3, 10, rng);
    ASSERT_EQ(std::set<std::uint32_t>(numbers.begin(), numbers.end()).size(), 3U);
    for (const std::uint32_t number : numbers) ++drawn.at(number);
    ++first.at(numbers[0]);
  }
  EXPECT_THAT(drawn, ::testing::Each(::testing::AllOf(::testing::Gt(6000 - 292), ::testing::Lt(6000 + 292))));
  EXPECT_THAT(first, ::testing::Each(::testing::AllOf(::testing::Gt(2000 - 190), ::testing::Lt(2000 + 190))));
}

TEST(ShardMath, DrawsAllNumbersWhenAsked) {
  Rng rng(1, Purpose::partition);
  auto numbers = draw_distinct(100, 100, rng);
  EXPECT_FALSE(std::is_sorted(numbers.begin(), numbers.end()));
  std::sort(numbers.begin(), numbers.end());
  EXPECT_EQ(numbers[0], 0U);
  EXPECT_EQ(numbers[99], 99U);
  EXPECT_EQ(std::unique(numbers.begin(), numbers.end()), numbers.end());
}

TEST(ShardMath, GammaDrawsSurviveTinyShapes) {
  // Gamma(1e-4) underflows double in most draws; its logarithm does not, and the mean of log U / a is -1 / a.
  Rng rng(1, Purpose::partition);
  const auto logs = log_gamma_draws(1000, 1e-4, rng);
  for (const double log : logs) ASSERT_TRUE(std::isfinite(log));
  // The deviation of log U / a is 1 / a: four standard errors are 4 / √1000 of it.
  EXPECT_NEAR(std::accumulate(logs.begin(), logs.end(), 0.0) / 1000, -1e4, 1e4 * 4 / std::sqrt(1000.0));
}

TEST(IidPartition, DealsSizesThatDifferByAtMostOne) {
  const auto partition = make({{"name", "iid"}, {"clients", 7}}, labelled_data(5, 20));
  std::vector<std::size_t> sizes;
  for (ClientId client = 0; client < 7; ++client) sizes.push_back(partition->shard_size(client));
  EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), 100U);
  EXPECT_THAT(sizes, ::testing::Each(::testing::AnyOf(14U, 15U)));
}

TEST(IidPartition, CostsNothingForABillionClientsWhoShareExamples) {
  const auto data = labelled_data(5, 20);
  const auto partition = make({{"name", "iid"}, {"clients", 1000000000}, {"samples_per_client", 60}}, data);
  EXPECT_EQ(partition->clients(), 1000000000U);
  EXPECT_FALSE(partition->disjoint());
  const auto first = partition->shard(0), last = partition->shard(999999999);
  EXPECT_EQ(first.size(), 60U);
  EXPECT_EQ(std::set<std::uint32_t>(last.begin(), last.end()).size(), 60U);
  EXPECT_NE(first, last);
  EXPECT_NE(first, partition->shard(1));
}

TEST(IidPartition, SaysHowToHaveMoreClientsThanExamples) {
  EXPECT_EQ(error_of_making({{"name", "iid"}, {"clients", 101}}, labelled_data(5, 20)),
            "partition.clients: got 101, expected at most 100 (the training set has 100 examples); set "
            "samples_per_client to let clients share examples, or use fewer clients");
  EXPECT_EQ(error_of_making({{"name", "iid"}, {"samples_per_client", 101}}, labelled_data(5, 20)),
            "partition.samples_per_client: got 101, expected at most 100, the examples of the training set");
  EXPECT_THAT(error_of_making({{"name", "iid"}, {"clients", 0}}, labelled_data(5, 20)), StartsWith("partition.clients: got 0"));
}

/// Mean over clients of Σ q², the chance that two examples of a client share their class. For q ~ Dirichlet(alpha) over
/// K classes it is (alpha + 1) / (K alpha + 1) on average. Unbiased for n drawn: Σ n_k (n_k - 1) / (n (n - 1)).
double class_concentration(const Dataset& data, const Partition& partition) {
  double sum = 0;
  for (ClientId client = 0; client < partition.clients(); ++client) {
    const auto shard = partition.shard(client);
    const auto n = static_cast<double>(shard.size());
    for (const double count : class_counts(data, shard)) sum += count * (count - 1) / (n * (n - 1));
  }
  return sum / static_cast<double>(partition.clients());
}

TEST(DirichletPartition, DrawsMixturesOfTheGivenConcentration) {
  const auto data = labelled_data(10, 100);
  for (const double alpha : {0.1, 1.0, 100.0}) {
    // 20 of 100 a class, so that no class is used up. Each client's value lies in [0, 1]: its deviation is at most 0.5,
    // four standard errors over 4000 clients are at most 4 · 0.5 / √4000 = 0.032.
    const auto partition =
        make({{"name", "dirichlet"}, {"clients", 4000}, {"alpha", alpha}, {"samples_per_client", 20}}, data);
    EXPECT_NEAR(class_concentration(*data, *partition), (alpha + 1) / (10 * alpha + 1), 0.032) << alpha;
  }
}

TEST(DirichletPartition, DividesClassesByTheGivenConcentration) {
  // Over 10 clients the shares p of one class have E Σ p² = (alpha + 1) / (10 alpha + 1). 50 seeds × 10 classes give
  // four standard errors of at most 4 · 0.5 / √500 = 0.09; rounding to 1/100 and moved examples add less than 0.02.
  const auto data = labelled_data(10, 100);
  for (const double alpha : {0.1, 100.0}) {
    double sum = 0;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
      const auto partition = make({{"name", "dirichlet"}, {"clients", 10}, {"alpha", alpha}}, data, seed);
      for (ClientId client = 0; client < 10; ++client) {
        for (const double count : class_counts(*data, partition->shard(client))) sum += count * count / 10000;
      }
    }
    EXPECT_NEAR(sum / 500, (alpha + 1) / (10 * alpha + 1), 0.11) << alpha;
  }
}

TEST(DirichletPartition, GivesEveryClientTheMinimum) {
  const auto data = labelled_data(5, 20);
  const auto partition =
      make({{"name", "dirichlet"}, {"clients", 20}, {"alpha", 0.01}, {"min_samples", 4}}, data);
  std::size_t total = 0;
  for (ClientId client = 0; client < 20; ++client) {
    EXPECT_GE(partition->shard_size(client), 4U);
    total += partition->shard_size(client);
  }
  EXPECT_EQ(total, 100U);
}

TEST(DirichletPartition, TakesWhatIsMissingFromAllClassesOfTheDonor) {
  // alpha 1e-4 gives each of the two classes to one of the two clients as a whole; where both go to the same one, the other
  // gets 500 of its 2000 examples: 250 of each class, with the hypergeometric deviation √(500 / 4 · 1500 / 1999) = 9.7.
  const auto data = labelled_data(2, 1000);
  int seen = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const auto partition =
        make({{"name", "dirichlet"}, {"clients", 2}, {"alpha", 1e-4}, {"min_samples", 500}}, data, seed);
    for (ClientId client = 0; client < 2; ++client) {
      if (partition->shard_size(client) != 500) continue;
      ++seen;
      EXPECT_NEAR(class_counts(*data, partition->shard(client))[0], 250, 4 * 9.7) << seed;
    }
  }
  EXPECT_GT(seen, 0);  // all twenty seeds missing has a chance of 2^-20
}

TEST(DirichletPartition, DrawsWithoutRepetitionEvenWhereAClassIsUsedUp) {
  // alpha 1e-4 puts all weight on one class of 20; 100 of 100 must still be everything.
  const auto data = labelled_data(5, 20);
  const auto partition =
      make({{"name", "dirichlet"}, {"clients", 1000000000}, {"alpha", 1e-4}, {"samples_per_client", 100}}, data);
  for (const ClientId client : {ClientId{0}, ClientId{7}, ClientId{999999999}}) {
    const auto shard = partition->shard(client);
    EXPECT_EQ(std::set<std::uint32_t>(shard.begin(), shard.end()).size(), 100U);
  }
}

TEST(DirichletPartition, GivesOneClassForATinyAlpha) {
  const auto data = labelled_data(5, 20);
  const auto partition =
      make({{"name", "dirichlet"}, {"clients", 50}, {"alpha", 1e-4}, {"samples_per_client", 20}}, data);
  std::set<std::size_t> classes;
  for (ClientId client = 0; client < 50; ++client) {
    const auto counts = class_counts(*data, partition->shard(client));
    const auto largest = std::max_element(counts.begin(), counts.end());
    EXPECT_EQ(*largest, 20);
    classes.insert(static_cast<std::size_t>(largest - counts.begin()));
  }
  EXPECT_EQ(classes.size(), 5U);  // missing one of five in 50 draws has a chance of 5 · 0.8^50 < 1e-4
}

TEST(DirichletPartition, NamesWhatWouldFit) {
  EXPECT_EQ(error_of_making({{"name", "dirichlet"}, {"clients", 21}, {"min_samples", 5}}, labelled_data(5, 20)),
            "partition.clients: got 21, expected at most 20 for min_samples = 5 (the training set has 100 examples); set "
            "samples_per_client to let clients share examples, or use fewer clients");
  EXPECT_THAT(error_of_making({{"name", "dirichlet"}, {"alpha", 0}}, labelled_data(5, 20)), StartsWith("partition.alpha: got 0"));
  EXPECT_THAT(error_of_making({{"name", "dirichlet"}, {"samples_per_client", 101}}, labelled_data(5, 20)),
              StartsWith("partition.samples_per_client: got 101, expected at most 100"));
}

TEST(ShardsPartition, GivesEachClientTwoClassesAtMost) {
  // 5 classes × 40 into 20 pieces of 10: a piece lies within one class.
  const auto data = labelled_data(5, 40);
  const auto partition = make({{"name", "shards"}, {"clients", 10}, {"classes_per_client", 2}}, data);
  bool somebody_has_two = false;
  for (ClientId client = 0; client < 10; ++client) {
    EXPECT_EQ(partition->shard_size(client), 20U);
    const auto counts = class_counts(*data, partition->shard(client));
    const auto present = std::count_if(counts.begin(), counts.end(), [](double count) { return count > 0; });
    EXPECT_LE(present, 2);
    somebody_has_two = somebody_has_two || present == 2;
  }
  EXPECT_TRUE(somebody_has_two);
}

TEST(ShardsPartition, NamesWhatWouldFit) {
  EXPECT_EQ(error_of_making({{"name", "shards"}, {"clients", 34}, {"classes_per_client", 3}}, labelled_data(5, 20)),
            "partition.clients: got 34, expected at most 33 for classes_per_client = 3 (the training set has 100 "
            "examples); use fewer clients or classes_per_client");
}

TEST(QuantityPartition, HasLogNormalSizes) {
  // 2000 clients of 200 examples on average: rounding hardly shows. The standard error of a deviation is
  // 0.5 / √(2 · 2000) = 0.0079; four of them.
  const auto data = labelled_data(2, 200000);
  const auto partition = make({{"name", "quantity"}, {"clients", 2000}, {"sigma", 0.5}}, data);
  double sum = 0, squares = 0;
  for (ClientId client = 0; client < 2000; ++client) {
    const double log_size = std::log(static_cast<double>(partition->shard_size(client)));
    sum += log_size;
    squares += log_size * log_size;
  }
  const double mean = sum / 2000;
  EXPECT_NEAR(std::sqrt(squares / 2000 - mean * mean), 0.5, 0.032);
}

TEST(QuantityPartition, GivesEqualSizesForSigmaZeroAndTheMinimumForLargeOnes) {
  const auto data = labelled_data(5, 20);
  const auto equal = make({{"name", "quantity"}, {"clients", 10}, {"sigma", 0}}, data);
  for (ClientId client = 0; client < 10; ++client) EXPECT_EQ(equal->shard_size(client), 10U);
  const auto skewed = make({{"name", "quantity"}, {"clients", 10}, {"sigma", 10}, {"min_samples", 3}}, data);
  std::vector<std::size_t> sizes;
  for (ClientId client = 0; client < 10; ++client) sizes.push_back(skewed->shard_size(client));
  EXPECT_EQ(*std::min_element(sizes.begin(), sizes.end()), 3U);
  EXPECT_EQ(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}), 100U);
}

TEST(NaturalPartition, TakesTheUsersOfTheData) {
  const auto data = labelled_data(2, 6, 4);
  const auto all = make({{"name", "natural"}}, data);
  EXPECT_EQ(all->clients(), 4U);
  EXPECT_TRUE(all->disjoint());
  EXPECT_THAT(all->shard(1), ElementsAre(1, 5, 9));
  const auto some = make({{"name", "natural"}, {"clients", 3}}, data);
  EXPECT_EQ(some->clients(), 3U);
  EXPECT_FALSE(some->disjoint());
  std::set<std::uint32_t> firsts;
  for (ClientId client = 0; client < 3; ++client) firsts.insert(some->shard(client)[0]);
  EXPECT_EQ(firsts.size(), 3U);
}

TEST(NaturalPartition, SaysWhenThereAreNoUsersOrTooFew) {
  EXPECT_EQ(error_of_making({{"name", "natural"}}, labelled_data(2, 6)),
            "partition.name: got \"natural\", but the data set has no users of its own; use the data set 'leaf', or a "
            "partition that makes clients (iid, dirichlet, shards, quantity)");
  EXPECT_EQ(error_of_making({{"name", "natural"}, {"clients", 5}}, labelled_data(2, 6, 4)),
            "partition.clients: got 5, expected at most 4, the users of the data set; null takes all");
}

TEST(Partitions, RefuseClientsThatDoNotExist) {
  const auto data = labelled_data(2, 6, 4);
  for (const std::string& name : partitions().names()) {
    const auto partition = make({{"name", name}, {"clients", 3}}, data);
    EXPECT_THAT(error_of([&] { partition->shard(3); }), HasSubstr("the partition has no such client")) << name;
    EXPECT_THAT(error_of([&] { partition->shard_size(3); }), HasSubstr("the partition has no such client")) << name;
  }
}

}  // namespace
}  // namespace fl
