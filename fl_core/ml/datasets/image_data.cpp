#include "fl_core/ml/datasets/image_data.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/ml/datasets/data_file.h"

namespace fl {
namespace {

constexpr std::uint32_t kUnsignedBytes = 0x08;
constexpr std::uint64_t kExtentLimit = 1U << 16U;

std::uint32_t big_endian(std::span<const std::uint8_t> bytes, std::size_t at) {
  return static_cast<std::uint32_t>(bytes[at]) << 24U | static_cast<std::uint32_t>(bytes[at + 1]) << 16U |
         static_cast<std::uint32_t>(bytes[at + 2]) << 8U | static_cast<std::uint32_t>(bytes[at + 3]);
}

struct IdxArray {
  std::vector<std::uint64_t> extents;  ///< the first counts examples
  std::vector<std::uint8_t> values;
};

std::string hexadecimal(std::uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", value);
  return text;
}

/// Reads an IDX file of unsigned bytes with `least` to `most` axes. `kind` names in errors what was expected.
IdxArray read_idx(const std::string& path, std::size_t least, std::size_t most, const std::string& kind,
                  const std::string& hint) {
  const DataFile file(path, hint);
  const std::vector<std::uint8_t> header = file.prefix(4 + 4 * most);
  const std::uint32_t magic = header.size() < 4 ? 0 : big_endian(header, 0);
  const std::size_t axes = magic & 0xffU;
  if (header.size() < 4 || magic >> 8U != kUnsignedBytes || axes < least || axes > most) {
    throw ConfigError(path + ": begins with " + (header.size() < 4 ? "too few bytes" : hexadecimal(magic)) +
                      ", expected the IDX magic number of " + kind);
  }
  const std::size_t header_size = 4 + 4 * axes;
  if (header.size() < header_size) throw ConfigError(path + ": ends within its header; fetch the file again");
  IdxArray array;
  std::uint64_t size = 1;
  std::string layout;
  for (std::size_t axis = 0; axis < axes; ++axis) {
    const std::uint64_t extent = big_endian(header, 4 + 4 * axis);
    if (extent == 0 || (axis > 0 && extent > kExtentLimit)) {
      throw ConfigError(path + ": axis " + std::to_string(axis) + " has the extent " + std::to_string(extent) +
                        ", expected 1 to " + std::to_string(axis == 0 ? 0xffffffffU : kExtentLimit));
    }
    // Each factor is at most 2^32 and a size beyond the limit (2^34) stays where it is, so this cannot overflow.
    size = size > limits::kDataFileBytes ? size : size * extent;
    layout += (axis == 0 ? "" : " × ") + std::to_string(extent);
    array.extents.push_back(extent);
  }
  array.values = file.exactly(header_size, header_size + size,
                              "a header of " + std::to_string(header_size) + " bytes and " + layout + " values");
  return array;
}

void transpose_images(const std::string& path, IdxArray& images) {
  if (images.extents.size() < 3) {
    throw ConfigError(path + ": holds vectors, which cannot be transposed; set transpose to false");
  }
  auto& extents = images.extents;
  const std::size_t columns = extents.back();
  const std::size_t rows = extents[extents.size() - 2];
  std::vector<std::uint8_t> plane(rows * columns);
  for (std::size_t start = 0; start < images.values.size(); start += plane.size()) {
    std::uint8_t* values = images.values.data() + start;
    std::copy_n(values, plane.size(), plane.data());
    for (std::size_t row = 0; row < rows; ++row) {
      for (std::size_t column = 0; column < columns; ++column) values[column * rows + row] = plane[row * columns + column];
    }
  }
  std::swap(extents.back(), extents[extents.size() - 2]);
}

struct IdxPart {
  IdxArray images;
  std::vector<std::uint8_t> labels;
};

IdxPart read_part(const IdxPair& files, const IdxLoading& loading) {
  IdxPart part;
  part.images = read_idx(files.images, 2, 4, "images (0x00000803)", loading.hint);
  part.labels = read_idx(files.labels, 1, 1, "labels (0x00000801)", loading.hint).values;
  if (part.labels.size() != part.images.extents[0]) {
    throw ConfigError(files.labels + ": holds " + std::to_string(part.labels.size()) + " labels, expected " +
                      std::to_string(part.images.extents[0]) + ", one for each image of " + files.images);
  }
  if (loading.transpose) transpose_images(files.images, part.images);
  return part;
}

std::shared_ptr<const Dataset> make_dataset(const IdxPair& files, IdxPart part, std::int64_t classes,
                                            const IdxLoading& loading) {
  ExampleShape shape;
  shape.classes = classes;
  if (part.images.extents.size() == 3) shape.input.push_back(1);
  for (std::size_t axis = 1; axis < part.images.extents.size(); ++axis) {
    shape.input.push_back(static_cast<std::int64_t>(part.images.extents[axis]));
  }
  const std::size_t channels = shape.input.size() == 3 ? static_cast<std::size_t>(shape.input[0]) : 1;
  ArrayDataset::ByteFeatures features;
  features.values = std::move(part.images.values);
  features.table = pixel_table(std::vector<double>(channels, loading.mean), std::vector<double>(channels, loading.std));
  return std::make_shared<ArrayDataset>(files.labels, std::move(shape), std::move(features),
                                        std::vector<std::int32_t>(part.labels.begin(), part.labels.end()));
}

}  // namespace

std::vector<float> pixel_table(std::span<const double> mean, std::span<const double> std) {
  FL_CHECK(mean.size() == std.size(), "one mean and one deviation a channel");
  std::vector<float> table;
  for (std::size_t channel = 0; channel < mean.size(); ++channel) {
    for (int byte = 0; byte < 256; ++byte) {
      table.push_back(static_cast<float>((byte / 255.0 - mean[channel]) / std[channel]));
    }
  }
  return table;
}

DataSplits load_idx(const IdxPair& train, const IdxPair& test, const IdxLoading& loading) {
  IdxPart train_part = read_part(train, loading);
  IdxPart test_part = read_part(test, loading);
  const auto& ours = train_part.images.extents;
  const auto& theirs = test_part.images.extents;
  if (!std::equal(ours.begin() + 1, ours.end(), theirs.begin() + 1, theirs.end())) {
    throw ConfigError(test.images + ": its images have another shape than those of " + train.images);
  }
  const std::int64_t largest = std::max(*std::max_element(train_part.labels.begin(), train_part.labels.end()),
                                        *std::max_element(test_part.labels.begin(), test_part.labels.end()));
  const std::int64_t classes = loading.classes.value_or(largest + 1);
  DataSplits splits;
  splits.train = make_dataset(train, std::move(train_part), classes, loading);
  splits.test = make_dataset(test, std::move(test_part), classes, loading);
  return splits;
}

}  // namespace fl
