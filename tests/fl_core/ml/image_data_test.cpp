#include "fl_core/ml/datasets/image_data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using test::example;
using test::gz;
using test::idx;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::FloatEq;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// Two training images of 2 × 3 and one test image.
class IdxFiles : public ::testing::Test {
 protected:
  IdxFiles() {
    set("train_images", idx({2, 2, 3}, std::string({0, 51, 102, 3, 4, 5, 6, 7, 8, 9, 10, '\xff'})));
    set("train_labels", idx({2}, std::string({0, 4})));
    set("test_images", idx({1, 2, 3}, std::string({1, 2, 3, 4, 5, 6})));
    set("test_labels", idx({1}, std::string({2})));
  }

  void set(const std::string& key, const std::string& contents) { options_[key] = test::write_file(folder_ / key, contents); }
  DataSplits load() { return data_sources().create(options_, "data")->load(1); }
  std::string error() { return error_of([&] { load(); }); }
  std::string error_with(const std::string& key, const std::string& contents) {
    set(key, contents);
    return error();
  }
  std::string path(const std::string& key) { return (folder_ / key).string(); }

  test::TemporaryFolder folder_;
  json options_ = {{"name", "idx"}};
};

TEST_F(IdxFiles, LoadsPixelsDividedBy255) {
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->shape().input, ElementsAre(1, 2, 3));
  EXPECT_EQ(splits.train->shape().classes, 5);  // the largest label is 4
  EXPECT_EQ(splits.test->shape().classes, 5);
  EXPECT_THAT(splits.train->labels(), ElementsAre(0, 4));
  EXPECT_THAT(example(*splits.train, 0), ElementsAre(0, 0.2F, 0.4F, 3 / 255.0F, 4 / 255.0F, 5 / 255.0F));
  EXPECT_EQ(example(*splits.train, 1)[5], 1.0F);
  EXPECT_EQ(splits.test->size(), 1U);
}

TEST_F(IdxFiles, LoadsGzToTheSameBits) {
  const DataSplits raw = load();
  for (const char* key : {"train_images", "train_labels", "test_images", "test_labels"}) {
    std::ifstream file(path(key), std::ios::binary);
    set(key, gz(std::string(std::istreambuf_iterator<char>(file), {})));
  }
  const DataSplits packed = load();
  EXPECT_EQ(raw.train->fingerprint(), packed.train->fingerprint());
  EXPECT_EQ(raw.test->fingerprint(), packed.test->fingerprint());
}

TEST_F(IdxFiles, NormalisesByMeanAndStd) {
  options_["mean"] = 0.5;
  options_["std"] = 0.25;
  const DataSplits splits = load();
  EXPECT_EQ(example(*splits.train, 0)[0], -2.0F);  // (0 - 0.5) / 0.25
  EXPECT_EQ(example(*splits.train, 1)[5], 2.0F);   // (1 - 0.5) / 0.25
}

TEST_F(IdxFiles, TransposesImages) {
  options_["transpose"] = true;
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->shape().input, ElementsAre(1, 3, 2));
  // Rows 0 51 102 / 3 4 5 become columns; the second image shows that planes are kept apart.
  EXPECT_THAT(example(*splits.train, 0), ElementsAre(0, 3 / 255.0F, 0.2F, 4 / 255.0F, 0.4F, 5 / 255.0F));
  EXPECT_EQ(example(*splits.train, 1)[1], 9 / 255.0F);
}

TEST_F(IdxFiles, KeepsColourImagesAndVectorsInTheirShape) {
  set("train_images", idx({2, 3, 1, 2}, std::string(12, '\x01')));
  set("test_images", idx({1, 3, 1, 2}, std::string(6, '\x01')));
  EXPECT_THAT(load().train->shape().input, ElementsAre(3, 1, 2));
  set("train_images", idx({2, 6}, std::string(12, '\x01')));
  set("test_images", idx({1, 6}, std::string(6, '\x01')));
  EXPECT_THAT(load().train->shape().input, ElementsAre(6));
  options_["transpose"] = true;
  EXPECT_THAT(error(), HasSubstr("holds vectors, which cannot be transposed"));
}

TEST_F(IdxFiles, RejectsWrongMagic) {
  EXPECT_EQ(error_with("train_labels", idx({2, 1}, std::string({0, 1}))),
            path("train_labels") + ": begins with 0x00000802, expected the IDX magic number of labels (0x00000801)");
  EXPECT_THAT(error_with("train_images", "<html>404</html>"),
              HasSubstr("begins with 0x3c68746d, expected the IDX magic number of images (0x00000803)"));
  EXPECT_THAT(error_with("train_images", "ab"), HasSubstr("begins with too few bytes"));
}

TEST_F(IdxFiles, RejectsEveryTruncation) {
  const std::string whole = idx({1, 2, 3}, std::string({1, 2, 3, 4, 5, 6}));
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(error_with("test_images", whole.substr(0, size)), StartsWith(path("test_images") + ": ")) << size;
    EXPECT_THAT(error_with("test_images", gz(whole.substr(0, size))), StartsWith(path("test_images") + ": ")) << size;
  }
}

TEST_F(IdxFiles, RejectsBytesBeyondTheEnd) {
  const std::string whole = idx({1, 2, 3}, std::string({1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(error_with("test_images", whole + "!"),
            path("test_images") + ": has 23 bytes, expected 22 (a header of 16 bytes and 1 × 2 × 3 values); fetch the file again");
  EXPECT_THAT(error_with("test_images", gz(whole + "!")), HasSubstr("has more bytes when inflated, expected 22"));
}

TEST_F(IdxFiles, RejectsHeadersThatClaimTooMuch) {
  EXPECT_THAT(error_with("test_images", idx({0xffffffffU, 65536, 65536}, "")), HasSubstr("more than the limit"));
  EXPECT_THAT(error_with("test_images", idx({1, 0xffffffffU, 1}, "")), HasSubstr("axis 1 has the extent 4294967295"));
  EXPECT_THAT(error_with("test_images", idx({0, 2, 3}, "")), HasSubstr("axis 0 has the extent 0, expected 1 to"));
}

TEST_F(IdxFiles, RejectsCountsThatDiffer) {
  EXPECT_EQ(error_with("train_labels", idx({3}, std::string({0, 1, 2}))),
            path("train_labels") + ": holds 3 labels, expected 2, one for each image of " + path("train_images"));
}

TEST_F(IdxFiles, RejectsPartsOfDifferentShape) {
  EXPECT_EQ(error_with("test_images", idx({1, 3, 2}, std::string(6, '\0'))),
            path("test_images") + ": its images have another shape than those of " + path("train_images"));
}

TEST_F(IdxFiles, RejectsLabelsBeyondTheClasses) {
  options_["classes"] = 4;
  EXPECT_EQ(error(), path("train_labels") + ": example 1 has the label 4, expected 0 to 3");
}

TEST_F(IdxFiles, NamesWhatIsMissing) {
  std::filesystem::remove(folder_ / "test_labels");
  EXPECT_THAT(error(), StartsWith(path("test_labels") + ": no such file; expected an IDX file"));
  options_.erase("test_labels");
  EXPECT_EQ(error(), "data.test_labels: missing; expected the path of an IDX file");
}

class FashionMnistFiles : public ::testing::Test {
 protected:
  void write(const std::string& ending, bool packed) {
    const auto put = [&](const std::string& name, const std::string& contents) {
      test::write_file(folder_ / (name + ending), packed ? gz(contents) : contents);
    };
    put("train-images-idx3-ubyte", idx({2, 1, 1}, std::string({0, '\xff'})));
    put("train-labels-idx1-ubyte", idx({2}, std::string({3, 9})));
    put("t10k-images-idx3-ubyte", idx({1, 1, 1}, std::string({51})));
    put("t10k-labels-idx1-ubyte", idx({1}, std::string({0})));
  }
  DataSplits load() {
    json options = {{"name", "fashion_mnist"}, {"folder", folder_.path().string()}, {"normalise", normalise_}};
    return data_sources().create(options, "data")->load(1);
  }

  test::TemporaryFolder folder_;
  std::string normalise_ = "unit";
};

TEST_F(FashionMnistFiles, LoadsGzAndRawFiles) {
  write(".gz", true);
  const DataSplits packed = load();
  EXPECT_EQ(packed.train->shape().classes, 10);
  EXPECT_THAT(packed.train->labels(), ElementsAre(3, 9));
  EXPECT_THAT(example(*packed.test, 0), ElementsAre(0.2F));
  std::filesystem::remove(folder_ / "train-images-idx3-ubyte.gz");
  write("", false);
  EXPECT_EQ(load().train->fingerprint(), packed.train->fingerprint());
}

TEST_F(FashionMnistFiles, NormalisesByTheCustomaryValues) {
  write("", false);
  normalise_ = "standard";
  const DataSplits splits = load();
  EXPECT_THAT(example(*splits.train, 0), ElementsAre(FloatEq(-0.2860F / 0.3530F)));
  EXPECT_THAT(example(*splits.train, 1), ElementsAre(FloatEq(0.7140F / 0.3530F)));
}

TEST_F(FashionMnistFiles, SaysHowToInstallWhenAbsent) {
  EXPECT_THAT(error_of([&] { load(); }),
              HasSubstr("no such file; install it with 'apt install dataset-fashion-mnist'"));
}

TEST_F(FashionMnistFiles, RejectsALabelAbove9) {
  write("", false);
  test::write_file(folder_ / "t10k-labels-idx1-ubyte", idx({1}, std::string({10})));
  EXPECT_THAT(error_of([&] { load(); }), EndsWith("t10k-labels-idx1-ubyte: example 0 has the label 10, expected 0 to 9"));
}

/// The real thing: Debian's package, a declared dependency. The counts are those of the paper (arXiv:1708.07747, §2).
TEST(FashionMnist, InstalledDataAreComplete) {
  const DataSplits splits = data_sources().create({{"name", "fashion_mnist"}}, "data")->load(1);
  ASSERT_EQ(splits.train->size(), 60000U);
  ASSERT_EQ(splits.test->size(), 10000U);
  EXPECT_THAT(splits.train->shape().input, ElementsAre(1, 28, 28));
  std::vector<int> train(10), test(10);
  for (const auto label : splits.train->labels()) ++train[static_cast<std::size_t>(label)];
  for (const auto label : splits.test->labels()) ++test[static_cast<std::size_t>(label)];
  EXPECT_THAT(train, ::testing::Each(6000));
  EXPECT_THAT(test, ::testing::Each(1000));
  EXPECT_LT(splits.train->memory_bytes(), 50'000'000U);  // bytes, not floats
  // The mean of the training pixels / 255 is the customary 0.2860, which has four digits.
  std::vector<std::uint32_t> batch(1000);
  std::vector<float> pixels(1000 * 784);
  double sum = 0;
  for (std::uint32_t start = 0; start < 60000; start += 1000) {
    std::iota(batch.begin(), batch.end(), start);
    splits.train->gather(batch, pixels);
    for (const float pixel : pixels) sum += pixel;
  }
  EXPECT_NEAR(sum / (60000.0 * 784), 0.2860, 0.00006);
}

class CifarFiles : public ::testing::Test {
 protected:
  /// A record whose pixels are `red`, then `green`, then `blue`.
  static std::string record(const std::string& labels, char red, char green, char blue) {
    return labels + std::string(1024, red) + std::string(1024, green) + std::string(1024, blue);
  }
  void write10() {
    for (char i = 1; i <= 5; ++i) {
      test::write_file(folder_ / ("data_batch_" + std::to_string(i) + ".bin"), record(std::string(1, i), i, 0, '\xff'));
    }
    test::write_file(folder_ / "test_batch.bin", record({9}, 51, 0, 0) + record({0}, 0, 0, 0));
  }
  void write100() {
    test::write_file(folder_ / "train.bin", record({19, 99}, 51, 102, '\xff') + record({0, 1}, 0, 0, 0));
    test::write_file(folder_ / "test.bin", record({1, 2}, 0, 0, 0));
  }
  DataSplits load() {
    options_["folder"] = folder_.path().string();
    return data_sources().create(options_, "data")->load(1);
  }
  std::string error() { return error_of([&] { load(); }); }

  test::TemporaryFolder folder_;
  json options_ = {{"name", "cifar10"}};
};

TEST_F(CifarFiles, LoadsTheFiveBatchesInOrder) {
  write10();
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->shape().input, ElementsAre(3, 32, 32));
  EXPECT_EQ(splits.train->shape().classes, 10);
  EXPECT_THAT(splits.train->labels(), ElementsAre(1, 2, 3, 4, 5));
  EXPECT_THAT(splits.test->labels(), ElementsAre(9, 0));
  const auto second = example(*splits.train, 1);
  EXPECT_EQ(second[1023], 2 / 255.0F);
  EXPECT_EQ(second[1024], 0.0F);
  EXPECT_EQ(second[2048], 1.0F);
}

TEST_F(CifarFiles, TakesTheFineLabelsOfCifar100) {
  options_["name"] = "cifar100";
  write100();
  const DataSplits splits = load();
  EXPECT_EQ(splits.train->shape().classes, 100);
  EXPECT_THAT(splits.train->labels(), ElementsAre(99, 1));
  EXPECT_EQ(example(*splits.train, 0)[1024], 0.4F);
}

TEST_F(CifarFiles, NormalisesEachColourByItself) {
  write10();
  options_["mean"] = {0.2, 0.0, 0.5};
  options_["std"] = {0.5, 1.0, 0.25};
  const auto pixels = example(*load().test, 0);
  EXPECT_EQ(pixels[0], 0.0F);      // (0.2 - 0.2) / 0.5
  EXPECT_EQ(pixels[1024], 0.0F);   // (0 - 0) / 1
  EXPECT_EQ(pixels[2048], -2.0F);  // (0 - 0.5) / 0.25
}

TEST_F(CifarFiles, RejectsTruncationTrailingBytesAndBadLabels) {
  write10();
  test::write_file(folder_ / "data_batch_3.bin", record({1}, 0, 0, 0).substr(0, 3000));
  EXPECT_THAT(error(), HasSubstr("data_batch_3.bin: has 3000 bytes, expected whole records of 3073"));
  test::write_file(folder_ / "data_batch_3.bin", record({1}, 0, 0, 0) + "!");
  EXPECT_THAT(error(), HasSubstr("data_batch_3.bin: has 3074 bytes, expected whole records of 3073"));
  test::write_file(folder_ / "data_batch_3.bin", record({1}, 0, 0, 0) + record({10}, 0, 0, 0));
  EXPECT_THAT(error(), HasSubstr("data_batch_3.bin: record 1 has the label 10, expected 0 to 9"));
  options_["name"] = "cifar100";
  write100();
  test::write_file(folder_ / "test.bin", record({20, 2}, 0, 0, 0));
  EXPECT_THAT(error(), HasSubstr("test.bin: record 0 has the label 20, expected 0 to 19"));
}

TEST_F(CifarFiles, SaysWhereToGetItWhenAbsent) {
  write10();
  std::filesystem::remove(folder_ / "test_batch.bin");
  EXPECT_THAT(error(), HasSubstr("test_batch.bin: no such file; download cifar-10-binary.tar.gz from"));
}

}  // namespace
}  // namespace fl
