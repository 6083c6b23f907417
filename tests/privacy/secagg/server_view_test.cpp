// What a server sees: before the masks are off, numbers that look drawn at random, whatever the clients' vectors are.
#include <gtest/gtest.h>

#include <cmath>

#include "privacy/secagg/mask.h"
#include "tests/privacy/secagg/secagg_rig.h"

namespace fl {
namespace {

using namespace secagg_test;

constexpr std::size_t kClients = 6;
constexpr std::uint64_t kLength = 20'000;

SecAggPlan plan_of(unsigned bits) {
  SecAggPlan plan = plan_for(kClients, 2);
  plan.bits = bits;
  plan.length = kLength;
  return plan;
}

/// Standard deviations by which χ² of 256 equally likely values is above its mean: 255 degrees of freedom, variance
/// 510. The seeds are fixed; for random bytes a value above 5 would come once in more than a million.
double excess(const std::vector<std::uint64_t>& bytes) {
  std::array<double, 256> counts{};
  for (const std::uint64_t byte : bytes) counts[byte & 0xff] += 1;
  const double expected = static_cast<double>(bytes.size()) / 256;
  double chi_square = 0;
  for (const double count : counts) chi_square += (count - expected) * (count - expected) / expected;
  return (chi_square - 255) / std::sqrt(510.0);
}

/// The masked vectors of a recorded round, in which everybody has the same constant vector.
std::vector<std::vector<std::uint64_t>> masked(Rig& rig) {
  for (std::size_t i = 0; i < kClients; ++i) rig.input(i).assign(kLength, 3);
  EXPECT_TRUE(rig.run().has_value());
  std::vector<std::vector<std::uint64_t>> vectors(kClients, std::vector<std::uint64_t>(kLength));
  for (std::size_t i = 0; i < kClients; ++i)
    add_input(rig.round(), rig.sent(i)[SecAggStep::input], rig.plan().bits, vectors[i]);
  return vectors;
}

void expect_uniform(const std::vector<std::uint64_t>& values, unsigned bits, const std::string& what) {
  for (unsigned shift = 0; shift + 8 <= bits; shift += 8) {
    std::vector<std::uint64_t> bytes(values);
    for (std::uint64_t& value : bytes) value >>= shift;
    EXPECT_LT(std::abs(excess(bytes)), 5) << what << ", byte " << shift / 8;
  }
}

TEST(ServerView, MaskedVectorsAreUniform) {
  for (const unsigned bits : {8U, 24U, 64U}) {
    Rig rig(kClients, plan_of(bits));
    for (const auto& vector : masked(rig)) expect_uniform(vector, bits, std::to_string(bits) + " bits");
  }
}

// The bytes of one vector less another's, and of sums of some: masks are independent, so none is more telling than one
// alone.
TEST(ServerView, SumsOfSomeMaskedVectorsAreUniform) {
  Rig rig(kClients, plan_of(24));
  const auto vectors = masked(rig);
  for (std::size_t some = 1; some + 1 < std::size_t{1} << kClients; ++some) {
    std::vector<std::uint64_t> sum(kLength);
    std::vector<std::uint64_t> difference(kLength);
    for (std::size_t i = 0; i < kClients; ++i) {
      for (std::size_t v = 0; v < kLength; ++v) {
        sum[v] += (some >> i & 1U) != 0 ? vectors[i][v] : 0;
        difference[v] += (some >> i & 1U) != 0 ? vectors[i][v] : 0 - vectors[i][v];
      }
    }
    expect_uniform(sum, 24, "sum of " + std::to_string(some));
    expect_uniform(difference, 24, "difference of " + std::to_string(some));
  }
}

/// The seeds of all, from the shares that were revealed: what the server knows after an unmasking without drop-outs.
std::vector<SecretKey> revealed_seeds(Rig& rig) {
  const SecAggCohort& roster = *rig.server().roster();
  std::vector<SecretKey> seeds;
  for (std::uint32_t owner = 0; owner < kClients; ++owner) {
    std::vector<ShamirShare> shares;
    const auto holders = roster.neighbours(owner);
    for (std::size_t h = 0; h < holders.size(); ++h) {
      for (const RevealedShare& share : decode_reveal(rig.round(), rig.sent(holders[h])[SecAggStep::unmask])) {
        if (share.owner == roster.client(owner))
          shares.push_back({static_cast<std::uint32_t>(h + 1), SecretBytes(SecAggView(share.value))});
      }
    }
    const SecretBytes seed = shamir_combine(shares, roster.threshold(), SecretKey::kSize);
    seeds.emplace_back(std::span<const std::byte, SecretKey::kSize>(seed.bytes()));
  }
  return seeds;
}

// With every self mask taken off, each vector and each sum of fewer than all is still under pairwise masks. Only the
// sum of all is bare: 6 · 3 = 18 everywhere, which is also the control that shows what the test sees when there is no
// mask.
TEST(ServerView, OnlyTheSumOfAllIsBareOnceSeedsAreRevealed) {
  Rig rig(kClients, plan_of(24));
  auto vectors = masked(rig);
  const std::vector<SecretKey> seeds = revealed_seeds(rig);
  for (std::uint32_t i = 0; i < kClients; ++i) {
    subtract_mask(rig.server().roster()->self_mask(seeds[i], rig.server().roster()->client(i)), vectors[i], 24);
  }
  for (std::size_t some = 1; some < std::size_t{1} << kClients; ++some) {
    std::vector<std::uint64_t> sum(kLength);
    for (std::size_t i = 0; i < kClients; ++i) {
      for (std::size_t v = 0; v < kLength && (some >> i & 1U) != 0; ++v) sum[v] = (sum[v] + vectors[i][v]) & 0xffffff;
    }
    if (some + 1 < std::size_t{1} << kClients) {
      expect_uniform(sum, 24, "clients " + std::to_string(some));
    } else {
      EXPECT_EQ(sum, std::vector<std::uint64_t>(kLength, 18));
      EXPECT_GT(excess(sum), 1000);
    }
  }
}

TEST(ServerView, NothingRepeatsFromRoundToRound) {
  SecAggRound next = some_round();
  next.round = 6;
  Rig rig(kClients, plan_of(24));
  Rig later(kClients, plan_of(24), next);  // the rig's randomness is the same: only the round differs
  const auto first = masked(rig);
  const auto second = masked(later);
  for (std::size_t i = 0; i < kClients; ++i) {
    std::vector<std::uint64_t> difference(kLength);
    for (std::size_t v = 0; v < kLength; ++v) difference[v] = (first[i][v] - second[i][v]) & 0xffffff;
    expect_uniform(difference, 24, "client " + std::to_string(i));
  }
}

}  // namespace
}  // namespace fl
