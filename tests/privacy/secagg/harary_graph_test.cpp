#include "privacy/secagg/harary_graph.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "fl_core/base/error.h"
#include "privacy/noise/random_bits.h"
#include "tests/privacy/noise/statistics.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

bool is_connected(const HararyGraph& graph) {
  std::vector<bool> seen(graph.clients());
  std::vector<std::uint32_t> open{0};
  seen[0] = true;
  while (!open.empty()) {
    const auto place = open.back();
    open.pop_back();
    for (const auto next : graph.neighbours(place)) {
      if (!seen[next]) open.push_back(next);
      seen[next] = true;
    }
  }
  return std::ranges::count(seen, true) == graph.clients();
}

TEST(HararyGraph, IsRegularSymmetricAndConnected) {
  for (std::uint32_t n = 3; n <= 12; ++n) {
    for (std::uint32_t degree = 2; degree < n; ++degree) {
      if (degree % 2 != 0 && degree != n - 1) continue;
      const HararyGraph graph(n, degree, test::key_of(n));
      for (std::uint32_t a = 0; a < n; ++a) {
        const auto neighbours = graph.neighbours(a);
        EXPECT_EQ(neighbours.size(), degree);
        EXPECT_TRUE(std::ranges::is_sorted(neighbours));
        EXPECT_EQ(std::ranges::adjacent_find(neighbours), neighbours.end());
        for (std::uint32_t b = 0; b < n; ++b) {
          const bool listed = std::ranges::binary_search(neighbours, b);
          EXPECT_EQ(graph.are_neighbours(a, b), listed) << n << " " << degree << " " << a << " " << b;
          EXPECT_EQ(graph.are_neighbours(b, a), listed);
        }
        EXPECT_FALSE(graph.are_neighbours(a, a));
      }
      EXPECT_TRUE(is_connected(graph));
    }
  }
}

TEST(HararyGraph, FollowsFromTheSeedByFisherAndYates) {
  // The protocol, in other words: the ring is the identity shuffled from the top by RandomBits::below, neighbours are
  // those up to degree/2 seats away.
  const GraphSeed seed = test::key_of(9);
  std::vector<std::uint32_t> ring(11);
  std::iota(ring.begin(), ring.end(), 0U);
  RandomBits bits(seed);
  for (std::uint32_t i = 10; i > 0; --i) std::swap(ring[i], ring[bits.below(i + 1)]);
  const HararyGraph graph(11, 4, seed);
  for (std::size_t seat = 0; seat < 11; ++seat) {
    std::vector<std::uint32_t> expected{ring[(seat + 1) % 11], ring[(seat + 2) % 11], ring[(seat + 10) % 11],
                                        ring[(seat + 9) % 11]};
    std::ranges::sort(expected);
    EXPECT_EQ(graph.neighbours(ring[seat]), expected);
  }
}

TEST(HararyGraph, MakesEveryPairNeighboursEquallyOften) {
  // 28 pairs of 8, of which a graph of degree 2 has 8. χ² treats the counts as independent; the 8 of a graph are not,
  // which makes the statistic smaller, not larger.
  std::vector<double> counts(28);
  constexpr int kGraphs = 20'000;
  for (int i = 0; i < kGraphs; ++i) {
    const HararyGraph graph(8, 2, test::key_of(static_cast<std::uint64_t>(i)));
    std::size_t pair = 0;
    for (std::uint32_t a = 0; a < 8; ++a) {
      for (std::uint32_t b = a + 1; b < 8; ++b) counts[pair++] += graph.are_neighbours(a, b) ? 1 : 0;
    }
  }
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), 0.0), 8.0 * kGraphs);
  EXPECT_LT(test::chi_square_statistic(counts, std::vector<double>(28, kGraphs * 8 / 28.0)), test::kOneInAMillion);
}

TEST(HararyGraph, RefusesDegreesThatAreNone) {
  const auto error = [](std::uint32_t n, std::uint32_t degree) {
    return test::error_of([&] { HararyGraph(n, degree, GraphSeed{}); });
  };
  EXPECT_THAT(error(10, 1), HasSubstr("10 clients with 1 neighbours"));
  EXPECT_THAT(error(10, 0), HasSubstr("expected an even number"));
  EXPECT_THAT(error(10, 3), HasSubstr("expected an even number"));
  EXPECT_THAT(error(10, 10), HasSubstr("expected an even number"));
  EXPECT_THAT(error(0, 2), HasSubstr("expected an even number"));
  EXPECT_EQ(error(10, 9), "");
}

}  // namespace
}  // namespace fl
