#include "fl_core/ml/array_dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::example;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

ExampleShape shape_of(std::vector<std::int64_t> input, std::int64_t classes, std::int64_t vocabulary = 0) {
  ExampleShape shape;
  shape.input = std::move(input);
  shape.classes = classes;
  shape.vocabulary = vocabulary;
  return shape;
}

/// Byte b in channel c becomes 1000 c + b.
ArrayDataset::ByteFeatures bytes(std::vector<std::uint8_t> values, std::size_t channels) {
  ArrayDataset::ByteFeatures features;
  features.values = std::move(values);
  for (std::size_t i = 0; i < channels * 256; ++i) features.table.push_back(static_cast<float>(i / 256 * 1000 + i % 256));
  return features;
}

ArrayDataset floats(std::vector<float> values, std::vector<std::int32_t> labels, std::int64_t classes = 2) {
  return ArrayDataset("origin", shape_of({2}, classes), ArrayDataset::FloatFeatures(std::move(values)), std::move(labels));
}

TEST(ArrayDataset, GathersFloatsInTheOrderAskedFor) {
  const ArrayDataset data = floats({1, 2, 3, 4, 5, 6}, {0, 1, 0});
  std::vector<float> out(6);
  data.gather(std::vector<std::uint32_t>{2, 0, 2}, out);
  EXPECT_THAT(out, ElementsAre(5, 6, 1, 2, 5, 6));
  EXPECT_EQ(data.size(), 3U);
}

TEST(ArrayDataset, GathersBytesThroughTheTableOfTheirChannel) {
  // Two examples of 2 channels with 1 × 2 pixels.
  const ArrayDataset data("origin", shape_of({2, 1, 2}, 2), bytes({1, 2, 3, 4, 250, 251, 252, 253}, 2), {0, 1});
  EXPECT_THAT(example(data, 0), ElementsAre(1, 2, 1003, 1004));
  EXPECT_THAT(example(data, 1), ElementsAre(250, 251, 1252, 1253));
}

TEST(ArrayDataset, UsesOneTableWhereTheInputHasNotThreeAxes) {
  const ArrayDataset data("origin", shape_of({2, 2}, 1), bytes({9, 8, 7, 255}, 1), {0});
  EXPECT_THAT(example(data, 0), ElementsAre(9, 8, 7, 255));
}

TEST(ArrayDataset, FingerprintDependsOnShapeFeaturesAndLabels) {
  const std::string base = floats({1, 2, 3, 4}, {0, 1}).fingerprint();
  EXPECT_EQ(base.size(), 64U);
  EXPECT_EQ(base, floats({1, 2, 3, 4}, {0, 1}).fingerprint());
  EXPECT_NE(base, floats({1, 2, 3, 5}, {0, 1}).fingerprint());
  EXPECT_NE(base, floats({1, 2, 3, 4}, {1, 1}).fingerprint());
  EXPECT_NE(base, floats({1, 2, 3, 4}, {0, 1}, 3).fingerprint());
  const ArrayDataset reshaped("origin", shape_of({1, 2}, 2), ArrayDataset::FloatFeatures{1, 2, 3, 4}, {0, 1});
  EXPECT_NE(base, reshaped.fingerprint());
  const ArrayDataset with_users("origin", shape_of({2}, 2), ArrayDataset::FloatFeatures{1, 2, 3, 4}, {0, 1}, {{0}, {1}});
  EXPECT_NE(base, with_users.fingerprint());
}

TEST(ArrayDataset, CountsTheBytesItHolds) {
  // 4 pixels + 256 floats of table + 1 label.
  const ArrayDataset data("origin", shape_of({2, 2}, 1), bytes({9, 8, 7, 255}, 1), {0});
  EXPECT_EQ(data.memory_bytes(), sizeof(ArrayDataset) + 4 + 1024 + 4);
}

TEST(ArrayDataset, RejectsLabelsOutsideTheClasses) {
  EXPECT_EQ(error_of([] { floats({1, 2, 3, 4}, {0, 2}); }), "origin: example 1 has the label 2, expected 0 to 1");
  EXPECT_EQ(error_of([] { floats({1, 2, 3, 4}, {-1, 1}); }), "origin: example 0 has the label -1, expected 0 to 1");
}

TEST(ArrayDataset, RejectsCountsThatDoNotAgree) {
  EXPECT_EQ(error_of([] { floats({1, 2, 3}, {0, 1}); }), "origin: has 3 feature values, expected 2 labels × the shape [2]");
  EXPECT_EQ(error_of([] { floats({1, 2, 3, 4, 5, 6}, {0, 1}); }),
            "origin: has 6 feature values, expected 2 labels × the shape [2]");
  EXPECT_EQ(error_of([] { floats({}, {}); }), "origin: holds no examples");
  EXPECT_THAT(error_of([] { ArrayDataset("origin", shape_of({3, 1, 1}, 1), bytes({1, 2, 3}, 1), {0}); }),
              HasSubstr("has 256 entries, expected 256 for each of 3 channels"));
}

TEST(ArrayDataset, RejectsShapesThatAreEmptyNegativeOrHuge) {
  const auto with_shape = [](std::vector<std::int64_t> input) {
    return error_of([&] { ArrayDataset("origin", shape_of(input, 1), ArrayDataset::FloatFeatures{1}, {0}); });
  };
  EXPECT_THAT(with_shape({}), StartsWith("origin: the shape of an example is []"));
  EXPECT_THAT(with_shape({-1, -1}), StartsWith("origin: the shape of an example is [-1, -1]"));
  EXPECT_THAT(with_shape({1 << 16, 1 << 16, std::int64_t{1} << 32}), HasSubstr("at most 2^31"));
}

TEST(ArrayDataset, RejectsFeaturesThatAreNotFinite) {
  EXPECT_EQ(error_of([] { floats({1, 2, std::nanf(""), 4}, {0, 1}); }),
            "origin: example 1 has the feature nan, expected a finite number");
  auto infinite = bytes({1, 2, 3, 4}, 1);
  infinite.table[3] = std::numeric_limits<float>::infinity();
  EXPECT_THAT(error_of([&] { ArrayDataset("origin", shape_of({2}, 2), infinite, {0, 1}); }),
              StartsWith("origin: example 1 has the feature inf"));
}

TEST(ArrayDataset, RejectsFeaturesThatAreNoTokens) {
  const auto with = [](float token) {
    return error_of([=] { ArrayDataset("origin", shape_of({1}, 1, 80), ArrayDataset::FloatFeatures{token}, {0}); });
  };
  EXPECT_EQ(with(79), "");
  EXPECT_THAT(with(80), HasSubstr("expected a token id from 0 to 79"));
  EXPECT_THAT(with(-1), HasSubstr("expected a token id from 0 to 79"));
  EXPECT_THAT(with(0.5F), HasSubstr("expected a token id from 0 to 79"));
  // Only bytes that occur must be tokens.
  EXPECT_EQ(error_of([] { ArrayDataset("origin", shape_of({1}, 1, 80), bytes({79}, 1), {0}); }), "");
  EXPECT_THAT(error_of([] { ArrayDataset("origin", shape_of({1}, 1, 80), bytes({80}, 1), {0}); }),
              HasSubstr("expected a token id from 0 to 79"));
}

TEST(ArrayDataset, RejectsUsersWhoseExamplesAreWrong) {
  const auto with = [](std::vector<std::vector<std::uint32_t>> users) {
    return error_of([&] {
      ArrayDataset("origin", shape_of({2}, 2), ArrayDataset::FloatFeatures{1, 2, 3, 4}, {0, 1}, users);
    });
  };
  EXPECT_EQ(with({{1}, {0}}), "");
  EXPECT_EQ(with({{1}, {}}), "origin: user 1 has no examples");
  EXPECT_EQ(with({{2}}), "origin: user 0 lists example 2 of 2");
  EXPECT_EQ(with({{0}, {1, 0}}), "origin: user 1 lists example 0, which is listed before");
}

}  // namespace
}  // namespace fl
