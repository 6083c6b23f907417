#include <algorithm>
#include <limits>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/datasets/data_file.h"
#include "fl_core/ml/datasets/image_data.h"

namespace fl {
namespace {

constexpr std::size_t kImageBytes = 3 * 32 * 32;

struct CifarOptions {
  std::string folder;
  std::vector<double> mean = {0, 0, 0};
  std::vector<double> std = {1, 1, 1};

  void fields(Fields& f) {
    f.text("folder", folder, "folder of the unpacked binary version");
    f.numbers("mean", mean, 3, {}, "subtracted from pixels / 255, for red, green and blue");
    f.numbers("std", std, 3, {0, std::numeric_limits<double>::max(), true}, "divides what is left, for each colour");
  }

  void check(const std::string& path) const {
    if (folder.empty()) {
      throw ConfigError(join_path(path, "folder") + ": missing; expected the folder of the unpacked binary version");
    }
  }
};

/// One of the two layouts of https://www.cs.toronto.edu/~kriz/cifar.html: a record is `label_bytes` labels, the last of
/// which counts, then 1024 red, 1024 green and 1024 blue pixels, row by row.
struct CifarLayout {
  std::vector<std::string> train_files, test_files;
  std::vector<std::uint8_t> label_limits;  ///< for each label byte of a record: labels lie below
  std::string archive;
};

class Cifar : public DataSource {
 public:
  Cifar(const CifarOptions& options, CifarLayout layout) : options_(options), layout_(std::move(layout)) {}

  DataSplits load(std::uint64_t) const override { return {load_part(layout_.train_files), load_part(layout_.test_files)}; }

  std::vector<std::string> files() const override {
    std::vector<std::string> paths;
    for (const std::string& name : layout_.train_files) paths.push_back(options_.folder + "/" + name);
    for (const std::string& name : layout_.test_files) paths.push_back(options_.folder + "/" + name);
    return paths;
  }

 private:
  std::shared_ptr<const Dataset> load_part(const std::vector<std::string>& names) const {
    ArrayDataset::ByteFeatures features;
    features.table = pixel_table(options_.mean, options_.std);
    std::vector<std::int32_t> labels;
    for (const std::string& name : names) append(options_.folder + "/" + name, features.values, labels);
    ExampleShape shape;
    shape.input = {3, 32, 32};
    shape.classes = layout_.label_limits.back();
    return std::make_shared<ArrayDataset>(options_.folder, std::move(shape), std::move(features), std::move(labels));
  }

  void append(const std::string& path, std::vector<std::uint8_t>& pixels, std::vector<std::int32_t>& labels) const {
    const std::string records = DataFile(path, "download " + layout_.archive +
                                                   " from https://www.cs.toronto.edu/~kriz/cifar.html and unpack it")
                                    .text();
    const std::size_t label_bytes = layout_.label_limits.size();
    const std::size_t record = label_bytes + kImageBytes;
    if (records.empty() || records.size() % record != 0) {
      throw ConfigError(path + ": has " + std::to_string(records.size()) + " bytes, expected whole records of " +
                        std::to_string(record) + " (" + std::to_string(label_bytes) +
                        " for the label, 3 × 32 × 32 pixels); fetch the file again");
    }
    pixels.reserve(pixels.size() + records.size() / record * kImageBytes);
    for (std::size_t at = 0; at < records.size(); at += record) {
      for (std::size_t i = 0; i < label_bytes; ++i) {
        const auto label = static_cast<std::uint8_t>(records[at + i]);
        if (label < layout_.label_limits[i]) continue;
        throw ConfigError(path + ": record " + std::to_string(at / record) + " has the label " + std::to_string(label) +
                          ", expected 0 to " + std::to_string(layout_.label_limits[i] - 1));
      }
      labels.push_back(static_cast<std::uint8_t>(records[at + label_bytes - 1]));
      const auto* image = reinterpret_cast<const std::uint8_t*>(records.data()) + at + label_bytes;
      pixels.insert(pixels.end(), image, image + kImageBytes);
    }
  }

  CifarOptions options_;
  CifarLayout layout_;
};

class Cifar10 final : public Cifar {
 public:
  explicit Cifar10(const CifarOptions& options)
      : Cifar(options, {{"data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                         "data_batch_5.bin"},
                        {"test_batch.bin"},
                        {10},
                        "cifar-10-binary.tar.gz"}) {}
};

class Cifar100 final : public Cifar {
 public:
  explicit Cifar100(const CifarOptions& options)
      : Cifar(options, {{"train.bin"}, {"test.bin"}, {20, 100}, "cifar-100-binary.tar.gz"}) {}
};

FL_REGISTER(data_sources(), "cifar10", Cifar10, CifarOptions,
            "CIFAR-10, binary version: 50 000 + 10 000 colour images of 32 × 32, 10 classes");
FL_REGISTER(data_sources(), "cifar100", Cifar100, CifarOptions,
            "CIFAR-100, binary version: 50 000 + 10 000 colour images of 32 × 32, 100 fine classes");

}  // namespace
}  // namespace fl
