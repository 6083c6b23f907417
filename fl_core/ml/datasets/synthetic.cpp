#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/array_dataset.h"
#include "fl_core/ml/datasets/data_file.h"

namespace fl {
namespace {

constexpr std::int64_t kValueLimit = std::int64_t{1} << 32U;

struct SyntheticOptions {
  std::int64_t examples = 1000;
  std::int64_t test_examples = 200;
  std::vector<std::int64_t> input = {10};
  std::int64_t classes = 4;
  double separation = 3;
  double noise = 1;

  void fields(Fields& f) {
    f.integer("examples", examples, {1, 0xffffffff}, "training examples");
    f.integer("test_examples", test_examples, {1, 0xffffffff}, "test examples");
    f.integers("input", input, 0, {1, 1 << 20}, "shape of one example");
    f.integer("classes", classes, {1, limits::kClasses}, "number of classes");
    f.number("separation", separation, {0, 1e6}, "distance of every class mean from the origin");
    f.number("noise", noise, {0, 1e6}, "standard deviation of each feature about its class mean");
  }

  void check(const std::string& path) const {
    if (input.empty()) throw ConfigError(join_path(path, "input") + ": got [], expected at least one extent");
    std::int64_t most = kValueLimit / std::max({examples, test_examples, classes});
    for (const std::int64_t extent : input) most /= extent;
    if (most < 1) {
      throw ConfigError(join_path(path, "examples") + ": got " + std::to_string(examples) +
                        ", expected examples × the product of 'input' to be at most 2^32; make either smaller");
    }
  }
};

/// Gaussian blobs: class c has a mean of length `separation` in a random direction, example i belongs to class
/// i mod classes, and every feature adds N(0, noise²). Depends on the options and the seed only.
class Synthetic final : public DataSource {
 public:
  explicit Synthetic(const SyntheticOptions& options) : options_(options) {
    shape_.input = options.input;
    shape_.classes = options.classes;
  }

  DataSplits load(std::uint64_t seed) const override {
    const std::vector<float> means = class_means(seed);
    return {make_part(seed, 1, options_.examples, means), make_part(seed, 2, options_.test_examples, means)};
  }

 private:
  std::vector<float> class_means(std::uint64_t seed) const {
    Rng rng(seed, Purpose::synthetic_data, 0);
    const std::size_t dimension = shape_.input_size();
    std::vector<float> means;
    std::vector<double> direction(dimension);
    for (std::int64_t label = 0; label < options_.classes; ++label) {
      double squares = 0;
      for (double& value : direction) {
        value = rng.normal();
        squares += value * value;
      }
      const double scale = options_.separation / std::sqrt(std::max(squares, std::numeric_limits<double>::min()));
      for (const double value : direction) means.push_back(static_cast<float>(value * scale));
    }
    return means;
  }

  std::shared_ptr<const Dataset> make_part(std::uint64_t seed, std::uint64_t stream, std::int64_t examples,
                                           const std::vector<float>& means) const {
    Rng rng(seed, Purpose::synthetic_data, stream);
    const std::size_t dimension = shape_.input_size();
    const auto count = static_cast<std::size_t>(examples);
    ArrayDataset::FloatFeatures features;
    features.reserve(count * dimension);
    std::vector<std::int32_t> labels(count);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t label = i % static_cast<std::size_t>(options_.classes);
      labels[i] = static_cast<std::int32_t>(label);
      const float* mean = means.data() + label * dimension;
      for (std::size_t j = 0; j < dimension; ++j) {
        features.push_back(static_cast<float>(mean[j] + options_.noise * rng.normal()));
      }
    }
    return std::make_shared<ArrayDataset>("synthetic data", shape_, std::move(features), std::move(labels));
  }

  SyntheticOptions options_;
  ExampleShape shape_;
};

FL_REGISTER(data_sources(), "synthetic", Synthetic, SyntheticOptions,
            "Gaussian blobs about one mean a class, for tests and benchmarks");

}  // namespace
}  // namespace fl
