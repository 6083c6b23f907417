#pragma once

#include <array>
#include <string>
#include <variant>
#include <vector>

#include "fl_core/ml/dataset.h"

namespace fl {

/// Examples as one array, either bytes (images: a quarter of the memory, turned into floats by a table when gathered) or
/// floats. Checks on construction that sizes agree, labels lie in [0, classes), and features are finite (and valid token
/// ids where shape.vocabulary > 0); throws ConfigError that begins with `origin` (the file).
class ArrayDataset final : public Dataset {
 public:
  struct ByteFeatures {
    std::vector<std::uint8_t> values;  ///< size() × input_size()
    /// Feature value of byte b in channel c is table[c * 256 + b]; channels = shape.input[0] when the input has three
    /// axes, else 1.
    std::vector<float> table;
  };
  using FloatFeatures = std::vector<float>;

  ArrayDataset(std::string origin, ExampleShape shape, std::variant<ByteFeatures, FloatFeatures> features,
               std::vector<std::int32_t> labels, std::vector<std::vector<std::uint32_t>> users = {});

  std::size_t size() const override { return labels_.size(); }
  const ExampleShape& shape() const override { return shape_; }
  std::span<const std::int32_t> labels() const override { return labels_; }
  void gather(std::span<const std::uint32_t> examples, std::span<float> out) const override;
  const std::vector<std::vector<std::uint32_t>>& users() const override { return users_; }
  std::size_t memory_bytes() const override;
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  ExampleShape shape_;
  std::variant<ByteFeatures, FloatFeatures> features_;
  std::vector<std::int32_t> labels_;
  std::vector<std::vector<std::uint32_t>> users_;
  std::size_t input_size_;
  std::string fingerprint_;
};

}  // namespace fl
