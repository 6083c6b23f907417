#include "privacy/secagg/graph_parameters.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

#include "fl_core/base/error.h"
#include "tests/privacy/secagg/support.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

/// P[at least x of `drawn` are marked], summed from binomials in long double: an own way for small numbers.
long double at_least(int all, int marked, int drawn, int x) {
  const auto choose = [](int n, int k) {
    if (k < 0 || k > n) return 0.0L;
    long double out = 1;
    for (int i = 1; i <= k; ++i) out = out * (n - k + i) / i;
    return out;
  };
  long double sum = 0;
  for (int i = x; i <= drawn; ++i) sum += choose(marked, i) * choose(all - marked, drawn - i);
  return sum / choose(all, drawn);
}

TEST(GraphParameters, AreThoseOfFederatedCompute) {
  // 98 cases of graph_parameter_finder_test.cc, all that are feasible. Without an adversary a curious server is the
  // same. Three of them (lines 214, 374, 394: 10 clients, 3 of whom drop out, no adversary) break the finder's own
  // promise. It raises the threshold from 1 to 2, which Shamir's sharing needs, without asking whether 2 survive: of 4
  // neighbours only 1 does with 7 · 1 / 210 = 1/30, allowed is 2^-20 / 10. Of 6 neighbours 3 survive always.
  const std::set<int> broken{214, 374, 394};
  EXPECT_NEAR(static_cast<double>(at_least(10, 3, 4, 3)), 1 / 30.0, 1e-12);
  EXPECT_EQ(at_least(10, 3, 6, 5), 0);
  const auto vectors = test::test_data("secagg_vectors.json").at("graph");
  ASSERT_EQ(vectors.at("rows").size(), 98U);
  for (const auto& row : vectors.at("rows")) {
    GraphRequirements requirements{row[0], row[1], row[2]};
    requirements.server = row[3] == "SEMI_MALICIOUS_SERVER" ? ServerModel::semi_malicious : ServerModel::curious;
    const auto found = find_graph_parameters(requirements);
    GraphParameters expected{row[4], row[5]};
    if (broken.contains(row[6])) {
      EXPECT_EQ(expected, (GraphParameters{4, 2}));
      expected = {6, 2};
    }
    EXPECT_EQ(found, expected) << row << ": degree " << found.degree << ", threshold " << found.threshold;
  }
}

TEST(GraphParameters, KeepTheirPromiseAndNoSmallerThresholdDoes) {
  // Tails recomputed for other failure probabilities than those of the vectors.
  for (const int n : {20, 60, 150}) {
    for (const int bits : {8, 20, 30}) {
      GraphRequirements requirements{static_cast<std::uint32_t>(n), 0.1, 0.2, ServerModel::curious};
      requirements.security_bits = bits;
      requirements.correctness_bits = bits / 2;
      const auto found = find_graph_parameters(requirements);
      ASSERT_LT(found.degree, static_cast<std::uint32_t>(n) - 1);
      const int degree = static_cast<int>(found.degree);
      const int threshold = static_cast<int>(found.threshold);
      const long double insecure = std::exp2l(-bits - 1) / n;
      EXPECT_LE(at_least(n, n / 10, degree, threshold), insecure) << n << " " << bits;
      if (threshold > 2) {
        EXPECT_GT(at_least(n, n / 10, degree, threshold - 1), insecure) << n << " " << bits;
      }
      // Fewer than `threshold` survivors: at least degree - threshold + 1 of the n / 5 that drop out are neighbours.
      EXPECT_LT(at_least(n, n / 5, degree, degree - threshold + 1), std::exp2l(-bits / 2) / n) << n << " " << bits;
    }
  }
}

TEST(GraphParameters, FallBackToEverybodyInSmallRounds) {
  // 3 of 4 neighbours: adversaries floor(0.2 · 5) = 1, so 1 + 1 shares; drop-outs 1, so 3 survivors of 4 neighbours: 2
  // to 3.
  EXPECT_EQ(find_graph_parameters({5, 0.2, 0.2, ServerModel::curious}), (GraphParameters{4, 2}));
  // Of 4 neighbours 1 is an adversary: 5 answers of two kinds. 3 for one kind leaves 2 for the other.
  EXPECT_EQ(find_graph_parameters({5, 0.2, 0.2, ServerModel::semi_malicious}), (GraphParameters{4, 3}));
  EXPECT_EQ(find_graph_parameters({4, 0, 0.25, ServerModel::semi_malicious}), (GraphParameters{3, 2}));
  EXPECT_EQ(find_graph_parameters({3, 0, 0, ServerModel::semi_malicious}), (GraphParameters{2, 2}));
}

TEST(GraphParameters, OfTheCompleteGraphStandEveryCountTheyPromise) {
  // Whatever came out, with the exact numbers: adversaries of one client cannot rebuild, survivors can.
  int complete = 0;
  for (std::uint32_t n = 3; n <= 40; ++n) {
    for (const auto server : {ServerModel::curious, ServerModel::semi_malicious}) {
      for (const double rate : {0.0, 0.1, 0.2, 0.3}) {
        const GraphRequirements requirements{n, rate, rate, server};
        GraphParameters found;
        try {
          found = find_graph_parameters(requirements);
        } catch (const ConfigError&) {
          continue;
        }
        if (found.degree != n - 1) continue;
        ++complete;
        const auto lost = static_cast<std::uint32_t>(std::floor(rate * n + 1e-9));
        EXPECT_GT(found.threshold, lost);
        EXPECT_LE(found.threshold, n - 1 - lost);
        if (server == ServerModel::semi_malicious) {
          EXPECT_GT(2 * found.threshold, n - 1 + lost);
        }
      }
    }
  }
  EXPECT_GT(complete, 20) << "or nothing was tested";
}

TEST(GraphParameters, TakeRatesForTheWholeNumbersTheyMean) {
  // 0.58 · 50 is 28.999999999999996 in doubles. With 2^-128 allowed every adversary must be thought a neighbour: 29
  // + 1.
  const auto with = [](double rate) { return find_graph_parameters({50, rate, 0.3, ServerModel::curious, 128, 128}); };
  EXPECT_EQ(with(0.58).threshold, 30U);
  EXPECT_EQ(with(0.5799).threshold, 29U);
}

TEST(GraphParameters, RefuseWhatCannotBe) {
  const auto error = [](GraphRequirements r) { return test::error_of([&] { find_graph_parameters(r); }); };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(error({2, 0, 0}), HasSubstr("2 clients in a round; expected 3 to 1000000"));
  EXPECT_THAT(error({1'000'001, 0, 0}), HasSubstr("1000001 clients"));
  EXPECT_THAT(error({1000, -0.1, 0}), HasSubstr("adversary_rate -0.1"));
  EXPECT_THAT(error({1000, 1, 0}), HasSubstr("adversary_rate 1"));
  EXPECT_THAT(error({1000, nan, 0}), HasSubstr("adversary_rate"));
  EXPECT_THAT(error({1000, 0.1, 1}), HasSubstr("dropout_rate 1"));
  EXPECT_THAT(error({1000, 0.1, nan}), HasSubstr("dropout_rate"));
  EXPECT_THAT(error({1000, 0.5, 0.5, ServerModel::curious}), HasSubstr("adversary_rate + dropout_rate is 1.0"));
  EXPECT_THAT(error({1000, 0.33, 0.33}), HasSubstr("adversary_rate + 2 * dropout_rate is 0.99"));
  EXPECT_THAT(error({1000, 0, 0, ServerModel::curious, 0}), HasSubstr("security_bits 0"));
  EXPECT_THAT(error({1000, 0, 0, ServerModel::curious, 40, 129}), HasSubstr("correctness_bits 129"));
  // 1 of 4 is adversarial, 1 drops out: 3 neighbours, 2 · threshold > 3 + 1, so 3 shares; 2 survivors.
  EXPECT_THAT(error({4, 0.25, 0.25}), HasSubstr("4 clients, 1 of them adversarial and 1 dropping out"));
  EXPECT_THROW(find_graph_parameters({4, 0.25, 0.25}), ConfigError);
}

}  // namespace
}  // namespace fl
