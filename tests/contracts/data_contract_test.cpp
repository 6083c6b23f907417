#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "fl_core/ml/dataset.h"
#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;

/// Writes the smallest files that a component can load and returns its configuration. A component that needs no files
/// works without an entry here.
json configuration_of(const std::string& name, const test::TemporaryFolder& folder) {
  json options = {{"name", name}};
  const auto put = [&](const std::string& file, const std::string& contents) {
    return test::write_file(folder / file, contents);
  };
  const std::string images = test::idx({3, 2, 2}, std::string({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  const std::string labels = test::idx({3}, std::string({0, 1, 2}));
  const std::string pixels(3 * 32 * 32, '\x11');
  if (name == "fashion_mnist") {
    for (const char* part : {"train", "t10k"}) {
      put(part + std::string("-images-idx3-ubyte"), images);
      put(part + std::string("-labels-idx1-ubyte.gz"), test::gz(labels));
    }
  } else if (name == "idx") {
    for (const std::string part : {"train", "test"}) {
      options[part + "_images"] = put(part + ".images", images);
      options[part + "_labels"] = put(part + ".labels", labels);
    }
  } else if (name == "cifar10") {
    for (const char i : {'1', '2', '3', '4', '5'}) put(std::string("data_batch_") + i + ".bin", '\x03' + pixels);
    put("test_batch.bin", '\x04' + pixels);
  } else if (name == "cifar100") {
    for (const char* part : {"train.bin", "test.bin"}) put(part, std::string("\x03\x42") + pixels + "\x04\x43" + pixels);
  } else if (name == "csv") {
    options["train"] = put("train.csv", "a,b,label\n1,2,x\n3,4,y\n");
    options["test"] = put("test.csv", "a,b,label\n5,6,y\n");
  } else if (name == "leaf") {
    const std::string text = R"({"users": ["u"], "num_samples": [2], "user_data": {"u": {"x": [[1, 2], [3, 4]], "y": [0, 1]}}})";
    put("train/data.json", text);
    put("test/data.json", text);
    options["shape"] = {2};
  }
  if (name == "fashion_mnist" || name == "cifar10" || name == "cifar100" || name == "leaf") {
    options["folder"] = folder.path().string();
  }
  return options;
}

/// What every data source promises (fl_core/ml/dataset.h).
class DataContract : public ::testing::TestWithParam<std::string> {
 protected:
  DataContract() : options_(configuration_of(GetParam(), folder_)), source_(data_sources().create(options_, "data")) {}

  test::TemporaryFolder folder_;
  json options_;
  std::unique_ptr<DataSource> source_;
};

TEST_P(DataContract, LoadsTwoPartsOfOneShape) {
  const DataSplits splits = source_->load(1);
  for (const auto& part : {splits.train, splits.test}) {
    EXPECT_GT(part->size(), 0U);
    EXPECT_EQ(part->labels().size(), part->size());
    EXPECT_GE(part->memory_bytes(), part->size() * sizeof(std::int32_t));
    for (const std::int32_t label : part->labels()) {
      EXPECT_GE(label, 0);
      EXPECT_LT(label, part->shape().classes);
    }
  }
  EXPECT_EQ(splits.train->shape().input, splits.test->shape().input);
  EXPECT_EQ(splits.train->shape().classes, splits.test->shape().classes);
  EXPECT_EQ(splits.train->shape().vocabulary, splits.test->shape().vocabulary);
}

TEST_P(DataContract, GathersAnyOrderWithRepetition) {
  const DataSplits splits = source_->load(1);
  const Dataset& data = *splits.train;
  std::vector<std::uint32_t> order(data.size());
  std::iota(order.rbegin(), order.rend(), 0U);
  order.push_back(0);
  std::vector<float> together(order.size() * data.shape().input_size());
  data.gather(order, together);
  std::vector<float> one_by_one;
  for (const std::uint32_t i : order) {
    const auto values = test::example(data, i);
    one_by_one.insert(one_by_one.end(), values.begin(), values.end());
  }
  EXPECT_EQ(together, one_by_one);
  EXPECT_TRUE(std::all_of(together.begin(), together.end(), [](float value) { return std::isfinite(value); }));
}

TEST_P(DataContract, LoadsTheSameTwice) {
  const DataSplits one = source_->load(1), other = data_sources().create(options_, "data")->load(1);
  EXPECT_EQ(one.train->fingerprint(), other.train->fingerprint());
  EXPECT_EQ(one.test->fingerprint(), other.test->fingerprint());
  EXPECT_EQ(one.train->fingerprint().size(), 64U);
}

TEST_P(DataContract, NamesFilesThatExistAndMissesEachOfThem) {
  for (const std::string& file : source_->files()) {
    EXPECT_TRUE(std::filesystem::is_regular_file(file)) << file;
    std::filesystem::rename(file, file + ".away");
    const std::string error = test::error_of([&] { source_->load(1); });
    EXPECT_THAT(error, ::testing::HasSubstr(std::filesystem::path(file).parent_path().string())) << file;
    EXPECT_THROW(source_->load(1), ConfigError) << file;
    std::filesystem::rename(file + ".away", file);
  }
  EXPECT_EQ(test::error_of([&] { source_->load(1); }), "");
}

/// Cuts every file to lengths below a half (a format without counts, like CSV, cannot tell that whole records are gone from
/// its end, so the files above lose part of one): always an error that names the file, never a part of the data.
TEST_P(DataContract, RejectsTruncatedFiles) {
  for (const std::string& file : source_->files()) {
    const std::string whole = [&] {
      std::ifstream stream(file, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(stream), {});
    }();
    for (std::uint64_t part = 0; part < 10; ++part) {
      const auto keep = whole.size() * part / 20;
      test::write_file(file, whole.substr(0, keep));
      EXPECT_THAT(test::error_of([&] { source_->load(1); }), ::testing::StartsWith(file + ":")) << keep;
    }
    test::write_file(file, whole);
  }
  EXPECT_EQ(test::error_of([&] { source_->load(1); }), "");
}

INSTANTIATE_TEST_SUITE_P(Registered, DataContract, ::testing::ValuesIn(data_sources().names()),
                         [](const auto& test) { return test.param; });

}  // namespace
}  // namespace fl
