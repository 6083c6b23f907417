#include "fl_core/ml/array_dataset.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "fingerprints hash arrays as little-endian bytes");

constexpr std::size_t kByteValues = 256;

std::size_t channels_of(const ExampleShape& shape) {
  return shape.input.size() == 3 ? static_cast<std::size_t>(shape.input[0]) : 1;
}

std::string shape_text(const ExampleShape& shape) {
  std::string text;
  for (const std::int64_t extent : shape.input) text += (text.empty() ? "[" : ", ") + std::to_string(extent);
  return text.empty() ? "[]" : text + "]";
}

std::size_t checked_input_size(const std::string& origin, const ExampleShape& shape) {
  constexpr std::int64_t kLimit = std::int64_t{1} << 31;
  std::int64_t count = 1;
  for (const std::int64_t extent : shape.input) {
    if (extent < 1 || extent > kLimit / count) {
      throw ConfigError(origin + ": the shape of an example is " + shape_text(shape) +
                        ", expected positive extents with a product of at most 2^31");
    }
    count *= extent;
  }
  if (shape.input.empty()) throw ConfigError(origin + ": the shape of an example is [], expected at least one axis");
  return static_cast<std::size_t>(count);
}

void check_count(const std::string& origin, std::size_t values, std::size_t examples, const ExampleShape& shape) {
  if (examples == 0) throw ConfigError(origin + ": holds no examples");
  if (examples > std::numeric_limits<std::uint32_t>::max()) {
    throw ConfigError(origin + ": holds " + std::to_string(examples) + " examples, expected fewer than 2^32");
  }
  if (values / shape.input_size() != examples || values % shape.input_size() != 0) {
    throw ConfigError(origin + ": has " + std::to_string(values) + " feature values, expected " +
                      std::to_string(examples) + " labels × the shape " + shape_text(shape));
  }
}

void check_labels(const std::string& origin, const ExampleShape& shape, std::span<const std::int32_t> labels) {
  if (shape.classes < 1) {
    throw ConfigError(origin + ": has " + std::to_string(shape.classes) + " classes, expected at least 1");
  }
  for (std::size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] >= 0 && labels[i] < shape.classes) continue;
    throw ConfigError(origin + ": example " + std::to_string(i) + " has the label " + std::to_string(labels[i]) +
                      ", expected 0 to " + std::to_string(shape.classes - 1));
  }
}

bool valid_feature(float value, std::int64_t vocabulary) {
  if (!std::isfinite(value)) return false;
  return vocabulary == 0 || (value >= 0 && value < static_cast<float>(vocabulary) && value == std::floor(value));
}

[[noreturn]] void bad_feature(const std::string& origin, std::size_t example, float value, std::int64_t vocabulary) {
  throw ConfigError(origin + ": example " + std::to_string(example) + " has the feature " + std::to_string(value) +
                    ", expected " +
                    (vocabulary == 0 ? "a finite number" : "a token id from 0 to " + std::to_string(vocabulary - 1)));
}

void check_features(const std::string& origin, const ExampleShape& shape, const ArrayDataset::FloatFeatures& values) {
  const std::size_t input_size = shape.input_size();
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!valid_feature(values[i], shape.vocabulary)) bad_feature(origin, i / input_size, values[i], shape.vocabulary);
  }
}

void check_features(const std::string& origin, const ExampleShape& shape, const ArrayDataset::ByteFeatures& bytes) {
  const std::size_t channels = channels_of(shape);
  if (bytes.table.size() != channels * kByteValues) {
    throw ConfigError(origin + ": the table of byte values has " + std::to_string(bytes.table.size()) +
                      " entries, expected 256 for each of " + std::to_string(channels) + " channels");
  }
  // Byte by byte only where some entry is unfit: scanning tens of millions of good pixels would double the loading time.
  const auto fit = [&](float value) { return valid_feature(value, shape.vocabulary); };
  if (std::all_of(bytes.table.begin(), bytes.table.end(), fit)) return;
  const std::size_t input_size = shape.input_size();
  const std::size_t plane = input_size / channels;
  for (std::size_t i = 0; i < bytes.values.size(); ++i) {
    const float value = bytes.table[i % input_size / plane * kByteValues + bytes.values[i]];
    if (!fit(value)) bad_feature(origin, i / input_size, value, shape.vocabulary);
  }
}

void check_users(const std::string& origin, const std::vector<std::vector<std::uint32_t>>& users, std::size_t size) {
  std::vector<bool> owned(users.empty() ? 0 : size);
  for (std::size_t user = 0; user < users.size(); ++user) {
    const std::string who = origin + ": user " + std::to_string(user);
    if (users[user].empty()) throw ConfigError(who + " has no examples");
    for (const std::uint32_t example : users[user]) {
      if (example >= size) {
        throw ConfigError(who + " lists example " + std::to_string(example) + " of " + std::to_string(size));
      }
      if (owned[example]) {
        throw ConfigError(who + " lists example " + std::to_string(example) + ", which is listed before");
      }
      owned[example] = true;
    }
  }
}

/// How many examples ahead of the one that is read the memory is asked for. They lie anywhere, so without it a small batch waits for most of
/// its cache lines one after the other.
constexpr std::size_t kAhead = 6;

/// Asks for a row of features. Inlined in any case: g++ 12 drops calls of a function that does nothing else.
[[gnu::always_inline]] inline void prefetch(const std::byte* row, std::size_t bytes) {
  constexpr std::size_t kLine = 64, kMost = 4096;  // by then the processor sees where this goes
  for (std::size_t at = 0; at < std::min(bytes, kMost); at += kLine) __builtin_prefetch(row + at);
}

template <class T>
void hash_array(Sha256& hash, std::span<const T> values) {
  const std::uint64_t count = values.size();
  hash.add(std::as_bytes(std::span(&count, 1)));
  hash.add(std::as_bytes(values));
}

}  // namespace

ArrayDataset::ArrayDataset(std::string origin, ExampleShape shape, std::variant<ByteFeatures, FloatFeatures> features,
                           std::vector<std::int32_t> labels, std::vector<std::vector<std::uint32_t>> users)
    : shape_(std::move(shape)),
      features_(std::move(features)),
      labels_(std::move(labels)),
      users_(std::move(users)),
      input_size_(checked_input_size(origin, shape_)) {
  Sha256 hash;
  hash.add("array-dataset");
  hash_array(hash, std::span<const std::int64_t>(shape_.input));
  const std::array<std::int64_t, 3> kinds = {shape_.classes, shape_.vocabulary,
                                             static_cast<std::int64_t>(features_.index())};
  hash_array(hash, std::span<const std::int64_t>(kinds));
  if (const auto* bytes = std::get_if<ByteFeatures>(&features_)) {
    check_count(origin, bytes->values.size(), labels_.size(), shape_);
    check_features(origin, shape_, *bytes);
    hash_array(hash, std::span<const std::uint8_t>(bytes->values));
    hash_array(hash, std::span<const float>(bytes->table));
  } else {
    const FloatFeatures& values = std::get<FloatFeatures>(features_);
    check_count(origin, values.size(), labels_.size(), shape_);
    check_features(origin, shape_, values);
    hash_array(hash, std::span<const float>(values));
  }
  check_labels(origin, shape_, labels_);
  check_users(origin, users_, labels_.size());
  hash_array(hash, std::span<const std::int32_t>(labels_));
  for (const auto& user : users_) hash_array(hash, std::span<const std::uint32_t>(user));
  fingerprint_ = hash.finish_hex();
}

void ArrayDataset::gather(std::span<const std::uint32_t> examples, std::span<float> out) const {
  FL_CHECK(out.size() == examples.size() * input_size_, "gather needs room for every example");
  float* to = out.data();
  const auto* bytes = std::get_if<ByteFeatures>(&features_);
  const float* floats = bytes == nullptr ? std::get<FloatFeatures>(features_).data() : nullptr;
  const std::size_t channels = channels_of(shape_);
  const std::size_t plane = input_size_ / channels;
  const auto rows = bytes != nullptr ? std::as_bytes(std::span(bytes->values)) : std::as_bytes(std::span(std::get<FloatFeatures>(features_)));
  const std::size_t row_bytes = rows.size() / labels_.size();
  std::size_t asked = 0;
  for (std::size_t place = 0; place < examples.size(); ++place) {
    const std::uint32_t example = examples[place];
    for (; asked < std::min(examples.size(), place + kAhead + 1); ++asked) {
      if (examples[asked] < labels_.size()) prefetch(rows.data() + examples[asked] * row_bytes, row_bytes);
    }
    FL_CHECK(example < labels_.size(), "gather got an index beyond the data set");
    if (bytes == nullptr) {
      std::memcpy(to, floats + example * input_size_, input_size_ * sizeof(float));
      to += input_size_;
      continue;
    }
    const std::uint8_t* from = bytes->values.data() + example * input_size_;
    for (std::size_t channel = 0; channel < channels; ++channel, from += plane, to += plane) {
      const float* table = bytes->table.data() + channel * kByteValues;
      for (std::size_t i = 0; i < plane; ++i) to[i] = table[from[i]];
    }
  }
}

std::size_t ArrayDataset::memory_bytes() const {
  std::size_t bytes = sizeof(*this) + labels_.size() * sizeof(std::int32_t);
  if (const auto* packed = std::get_if<ByteFeatures>(&features_)) {
    bytes += packed->values.size() + packed->table.size() * sizeof(float);
  } else {
    bytes += std::get<FloatFeatures>(features_).size() * sizeof(float);
  }
  for (const auto& user : users_) bytes += sizeof(user) + user.size() * sizeof(std::uint32_t);
  return bytes;
}

}  // namespace fl
