#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "fl_core/config/registry.h"

namespace fl {

/// What one example looks like: the shape of its features (e.g. [1, 28, 28]; [3, 32, 32]; [80] tokens) and its classes.
struct ExampleShape {
  std::vector<std::int64_t> input;
  std::int64_t classes = 0;
  /// Features are token ids below `vocabulary` (stored as floats); 0 when they are plain numbers.
  std::int64_t vocabulary = 0;

  std::size_t input_size() const {
    std::size_t count = 1;
    for (const std::int64_t extent : input) count *= static_cast<std::size_t>(extent);
    return count;
  }
};

/// Labelled examples in memory. Immutable after loading and shared by all workers; all functions are thread-safe.
class Dataset {
 public:
  virtual ~Dataset() = default;
  virtual std::size_t size() const = 0;
  virtual const ExampleShape& shape() const = 0;
  /// One label in [0, classes) an example.
  virtual std::span<const std::int32_t> labels() const = 0;
  /// Writes the features of examples[i] to out[i * input_size() …], normalised. REQUIRES: indices below size().
  virtual void gather(std::span<const std::uint32_t> examples, std::span<float> out) const = 0;
  /// Where a data set brings its own users (LEAF): users()[u] lists user u's examples. Empty otherwise.
  virtual const std::vector<std::vector<std::uint32_t>>& users() const;
  /// Bytes held in memory.
  virtual std::size_t memory_bytes() const = 0;
  /// SHA-256 (hex) over features and labels: a resumed run must see the same data.
  virtual const std::string& fingerprint() const = 0;
};

/// A data set comes as two parts; `test` is what the server evaluates on.
struct DataSplits {
  std::shared_ptr<const Dataset> train;
  std::shared_ptr<const Dataset> test;
};

/// Loads both parts. One subclass for each "data" component of an experiment.
class DataSource {
 public:
  virtual ~DataSource() = default;
  /// `seed` matters where examples are drawn or held out at random (synthetic, csv with test_fraction). Throws ConfigError naming the file, what was found and what was expected.
  virtual DataSplits load(std::uint64_t seed) const = 0;
  /// The files that load() reads, for `fl doctor` and error hints. Empty for synthetic data.
  virtual std::vector<std::string> files() const { return {}; }
};

using DataRegistry = Registry<DataSource>;
/// Kind "data".
DataRegistry& data_sources();

}  // namespace fl
