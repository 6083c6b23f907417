#include "fl_core/ml/dense_network.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/ml/dense_loops.h"

namespace fl {
namespace {

using nlohmann::json;

std::vector<float> normals(std::size_t count, std::uint64_t seed) {
  Rng rng(seed, Purpose::synthetic_data);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(rng.normal());
  return values;
}

/// What the loops are given and what they gave.
struct Products {
  Products(std::size_t rows, std::size_t outs, std::size_t n)
      : x(normals(rows * n, 1)), w(normals(outs * n, 2)), bias(normals(outs, 3)), dots(rows * outs), gradient(outs * n), back(rows * n) {
    dense_loops().dots(x.data(), rows, w.data(), outs, n, bias.data(), dots.data());
    dense_loops().combine(dots.data(), 1, outs, outs, rows, x.data(), n, gradient.data());
    dense_loops().combine(dots.data(), outs, 1, rows, outs, w.data(), n, back.data());
  }
  std::vector<float> x, w, bias, dots, gradient, back;
};

struct Shape {
  std::size_t rows, outs, n;
};
/// Every remainder of the loops' blocks: 2 rows, 4 and 2 outputs, 16 and 8 and 4 floats.
std::vector<Shape> shapes() {
  std::vector<Shape> all;
  for (const std::size_t rows : {1, 2, 3, 6}) {
    for (const std::size_t outs : {1, 2, 3, 4, 7, 10}) {
      for (const std::size_t n : {1, 3, 4, 7, 8, 13, 16, 31, 784}) all.push_back({rows, outs, n});
    }
  }
  return all;
}

TEST(DenseLoops, GiveTheSameBitsOnEveryCpu) {
  for (const auto& [rows, outs, n] : shapes()) {
    const Products best(rows, outs, n);
    use_portable_dense_loops(true);
    const Products portable(rows, outs, n);
    use_portable_dense_loops(false);
    EXPECT_EQ(best.dots, portable.dots) << rows << " " << outs << " " << n;
    EXPECT_EQ(best.gradient, portable.gradient) << rows << " " << outs << " " << n;
    EXPECT_EQ(best.back, portable.back) << rows << " " << outs << " " << n;
  }
}

/// A float sum of n products of standard normals is off by less than n · 2^-23 times the sum of their sizes, about n.
TEST(DenseLoops, MultiplyAndAddAsTheySay) {
  for (const auto& [rows, outs, n] : shapes()) {
    const Products p(rows, outs, n);
    const auto close = [](double expected, double sizes, std::size_t terms, float got) { return std::abs(expected - got) <= static_cast<double>(terms + 1) * 0x1p-23 * (sizes + 1); };
    for (std::size_t r = 0; r < rows; ++r) {
      for (std::size_t o = 0; o < outs; ++o) {
        double sum = p.bias[o], sizes = std::abs(sum);
        for (std::size_t k = 0; k < n; ++k) {
          const double product = static_cast<double>(p.x[r * n + k]) * p.w[o * n + k];
          sum += product;
          sizes += std::abs(product);
        }
        ASSERT_TRUE(close(sum, sizes, n, p.dots[r * outs + o])) << rows << " " << outs << " " << n;
      }
    }
    for (std::size_t k = 0; k < n; ++k) {
      for (std::size_t o = 0; o < outs; ++o) {
        double sum = 0, sizes = 0;
        for (std::size_t r = 0; r < rows; ++r) {
          const double product = static_cast<double>(p.dots[r * outs + o]) * p.x[r * n + k];
          sum += product;
          sizes += std::abs(product);
        }
        ASSERT_TRUE(close(sum, sizes, rows, p.gradient[o * n + k])) << rows << " " << outs << " " << n;
      }
      for (std::size_t r = 0; r < rows; ++r) {
        double sum = 0, sizes = 0;
        for (std::size_t o = 0; o < outs; ++o) {
          const double product = static_cast<double>(p.dots[r * outs + o]) * p.w[o * n + k];
          sum += product;
          sizes += std::abs(product);
        }
        ASSERT_TRUE(close(sum, sizes, outs, p.back[r * n + k])) << rows << " " << outs << " " << n;
      }
    }
  }
}

TEST(DenseLoops, GiveARowTheSameBitsInEveryBatch) {
  const Products six(6, 10, 31);
  for (std::size_t r = 0; r < 6; ++r) {
    std::vector<float> alone(10);
    dense_loops().dots(six.x.data() + r * 31, 1, six.w.data(), 10, 31, six.bias.data(), alone.data());
    EXPECT_EQ(alone, std::vector<float>(six.dots.begin() + static_cast<std::ptrdiff_t>(r * 10), six.dots.begin() + static_cast<std::ptrdiff_t>(r * 10 + 10)));
  }
}

Architecture architecture_of(const std::string& stages, const ExampleShape& shape) {
  return parse_architecture({{"stages", json::parse(stages)}}, shape, "model");
}

constexpr const char* kLogistic = R"([{"flatten": {}}, {"linear": {"out": "classes"}}])";
constexpr const char* kThreeLayers =
    R"([{"flatten": {}}, {"linear": {"out": 9}}, {"relu": {}}, {"linear": {"out": 6, "bias": false}}, {"relu": {}}, {"linear": {"out": "classes"}}])";

/// One training step's inputs.
struct Step {
  Step(const std::string& stages, const ExampleShape& shape, std::size_t rows)
      : architecture(architecture_of(stages, shape)), weights(architecture.layout->size()), gradient(architecture.layout->weight_count(), 77.0F),
        inputs(normals(rows * shape.input_size(), 4)), labels(rows) {
    initialise(architecture, 1, weights);
    for (std::size_t i = 0; i < rows; ++i) labels[i] = static_cast<std::int64_t>(i * 3 + 1) % shape.classes;
  }
  double run() { return DenseNetwork::of(architecture).value().backward({inputs, labels}, weights, gradient); }

  Architecture architecture;
  std::vector<float> weights;
  std::vector<float> gradient;
  std::vector<float> inputs;
  std::vector<std::int64_t> labels;
};

/// The mean cross entropy in double, straight from the stages' definition.
double loss_in_double(const Step& step, const std::vector<double>& weights) {
  double loss = 0;
  const std::size_t inputs = step.inputs.size() / step.labels.size();
  for (std::size_t row = 0; row < step.labels.size(); ++row) {
    std::vector<double> x(step.inputs.begin() + static_cast<std::ptrdiff_t>(row * inputs), step.inputs.begin() + static_cast<std::ptrdiff_t>((row + 1) * inputs));
    for (const StageSpec& stage : step.architecture.stages) {
      if (std::holds_alternative<StageSpec::Activation>(stage.kind)) {
        for (double& value : x) value = std::max(value, 0.0);
      }
      const auto* linear = std::get_if<StageSpec::Linear>(&stage.kind);
      if (linear == nullptr) continue;
      const auto& slots = step.architecture.layout->slots();
      std::vector<double> y(static_cast<std::size_t>(linear->out));
      for (std::size_t o = 0; o < y.size(); ++o) {
        if (linear->bias) y[o] = weights[slots[stage.slots[1]].offset + o];
        for (std::size_t k = 0; k < x.size(); ++k) y[o] += weights[slots[stage.slots[0]].offset + o * x.size() + k] * x[k];
      }
      x = y;
    }
    double total = 0;
    for (const double logit : x) total += std::exp(logit);
    loss += std::log(total) - x[static_cast<std::size_t>(step.labels[row])];
  }
  return loss / static_cast<double>(step.labels.size());
}

/// Every single derivative by central differences in double, whose own error at h = 1e-6 is far below a float's.
void expect_differences(const char* stages, const ExampleShape& shape, std::size_t rows) {
  SCOPED_TRACE(std::string(stages) + " " + std::to_string(rows));
  Step step(stages, shape, rows);
  const double loss = step.run();
  std::vector<double> weights(step.weights.begin(), step.weights.end());
  EXPECT_NEAR(loss, loss_in_double(step, weights), 1e-5);
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const double middle = weights[i];
    weights[i] = middle + 1e-6;
    const double above = loss_in_double(step, weights);
    weights[i] = middle - 1e-6;
    const double below = loss_in_double(step, weights);
    weights[i] = middle;
    ASSERT_NEAR(step.gradient[i], (above - below) / 2e-6, 2e-6) << i;
  }
}

TEST(DenseNetwork, GivesTheDerivativeOfTheLoss) {
  for (const std::size_t rows : {1, 2, 5}) {
    expect_differences(kLogistic, {{1, 3, 4}, 5, 0}, rows);
    expect_differences(kThreeLayers, {{1, 3, 4}, 5, 0}, rows);
    expect_differences(R"([{"linear": {"out": 7}}, {"linear": {"out": "classes"}}, {"relu": {}}])", {{6}, 3, 0}, rows);
  }
}

TEST(DenseNetwork, GivesTheSameGradientAgainAfterBatchesOfOtherSizes) {
  Step large(kThreeLayers, {{1, 3, 4}, 5, 0}, 7);
  Step small(kThreeLayers, {{1, 3, 4}, 5, 0}, 2);
  DenseNetwork network = DenseNetwork::of(large.architecture).value();
  const double loss = network.backward({small.inputs, small.labels}, small.weights, small.gradient);
  const std::vector<float> first = small.gradient;
  network.backward({large.inputs, large.labels}, large.weights, large.gradient);
  EXPECT_EQ(network.backward({small.inputs, small.labels}, small.weights, small.gradient), loss);
  EXPECT_EQ(small.gradient, first);
}

TEST(DenseNetwork, SaysThatALossIsNoFiniteNumber) {
  Step step(kLogistic, {{1, 3, 4}, 5, 0}, 2);
  step.inputs[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(step.run()));
  step.inputs[0] = std::numeric_limits<float>::infinity();
  EXPECT_FALSE(std::isfinite(step.run()));
}

TEST(DenseNetwork, IsOnlyForSmallNetworksOfLinearStagesAndRelus) {
  const ExampleShape image{{1, 28, 28}, 10, 0};
  const auto takes = [&](const std::string& stages) { return DenseNetwork::of(architecture_of(stages, image)).has_value(); };
  EXPECT_TRUE(takes(kLogistic));
  EXPECT_TRUE(takes(kThreeLayers));
  EXPECT_TRUE(takes(R"([{"flatten": {}}, {"linear": {"out": 41}}, {"linear": {"out": "classes"}}])"));   // 32 605 weights
  EXPECT_FALSE(takes(R"([{"flatten": {}}, {"linear": {"out": 42}}, {"linear": {"out": "classes"}}])"));  // 33 400
  EXPECT_FALSE(takes(R"([{"conv": {"out": 1, "kernel": 5}}, {"flatten": {}}, {"linear": {"out": "classes"}}])"));
  EXPECT_FALSE(takes(R"([{"flatten": {}}, {"linear": {"out": 4}}, {"tanh": {}}, {"linear": {"out": "classes"}}])"));
  EXPECT_FALSE(takes(R"([{"flatten": {}}, {"dropout": {"probability": 0.5}}, {"linear": {"out": "classes"}}])"));
  EXPECT_FALSE(takes(R"([{"flatten": {}}, {"relu": {}}, {"linear": {"out": "classes"}}])"));
}

}  // namespace
}  // namespace fl
