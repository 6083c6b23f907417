#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "fl_core/ml/dataset.h"
#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using test::example;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::FloatEq;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class CsvFiles : public ::testing::Test {
 protected:
  CsvFiles() {
    train("a,label,b\n1,cat,2\n3,dog,4.5e1\n-1,ant,0\n");
    test("a,label,b\n7,dog,8\n");
  }
  void train(const std::string& text) { options_["train"] = test::write_file(folder_ / "train.csv", text); }
  void test(const std::string& text) { options_["test"] = test::write_file(folder_ / "test.csv", text); }
  DataSplits load(std::uint64_t seed = 1) { return data_sources().create(options_, "data")->load(seed); }
  std::string error() { return error_of([&] { load(); }); }
  std::string error_with(const std::string& text) {
    train(text);
    return error();
  }
  /// "…/train.csv"
  std::string file() { return (folder_ / "train.csv").string(); }

  test::TemporaryFolder folder_;
  json options_ = {{"name", "csv"}};
};

TEST_F(CsvFiles, LoadsFeaturesAndSortsTheClasses) {
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->shape().input, ElementsAre(2));
  EXPECT_EQ(splits.train->shape().classes, 3);
  EXPECT_THAT(splits.train->labels(), ElementsAre(1, 2, 0));  // ant, cat, dog
  EXPECT_THAT(example(*splits.train, 1), ElementsAre(3, 45));
  EXPECT_THAT(splits.test->labels(), ElementsAre(2));
  EXPECT_THAT(example(*splits.test, 0), ElementsAre(7, 8));
}

TEST_F(CsvFiles, SortsIntegerLabelsByNumber) {
  train("label,b\n10,1\n9,1\n-2,1\n09,1\n");
  test("label,b\n9,1\n");
  EXPECT_THAT(load().train->labels(), ElementsAre(2, 1, 0, 1));
}

TEST_F(CsvFiles, ReadsQuotesBlanksByteOrderMarksAndWindowsLines) {
  train("\xef\xbb\xbf\"a, first\" ,\"label\"\r\n\r\n 1 , \"x \"\"y\"\"\"\r\n+2,z\r\n");
  test("\"a, first\",label\n5,\"x \"\"y\"\"\"");
  const DataSplits splits = load();
  EXPECT_EQ(splits.train->shape().classes, 2);
  EXPECT_THAT(splits.train->labels(), ElementsAre(0, 1));
  EXPECT_THAT(example(*splits.train, 1), ElementsAre(2));
  EXPECT_THAT(splits.test->labels(), ElementsAre(0));
}

TEST_F(CsvFiles, StandardisesByTheTrainingPartOnly) {
  // Column a: 1, 3: mean 2, deviation 1. Column b is constant.
  train("a,label,b\n1,x,5\n3,y,5\n");
  test("a,label,b\n4,x,6\n");
  options_["standardise"] = true;
  const DataSplits splits = load();
  EXPECT_THAT(example(*splits.train, 0), ElementsAre(-1, 0));
  EXPECT_THAT(example(*splits.train, 1), ElementsAre(1, 0));
  EXPECT_THAT(example(*splits.test, 0), ElementsAre(2, 1));
}

TEST_F(CsvFiles, HoldsOutAFractionBySeed) {
  std::string text = "a,label\n";
  for (int i = 0; i < 40; ++i) text += std::to_string(i) + "," + std::to_string(i % 4) + "\n";
  train(text);
  options_.erase("test");
  options_["test_fraction"] = 0.25;
  const auto values = [](const Dataset& data) {
    std::vector<float> all;
    for (std::uint32_t i = 0; i < data.size(); ++i) {
      const float value = example(data, i)[0];
      EXPECT_EQ(data.labels()[i], static_cast<std::int32_t>(value) % 4);
      all.push_back(value);
    }
    return all;
  };
  const DataSplits splits = load(1);
  const auto train_rows = values(*splits.train), test_rows = values(*splits.test);
  EXPECT_EQ(test_rows.size(), 10U);
  std::set<float> together(train_rows.begin(), train_rows.end());
  together.insert(test_rows.begin(), test_rows.end());
  EXPECT_EQ(together.size(), 40U);
  EXPECT_EQ(test_rows, values(*load(1).test));
  EXPECT_NE(test_rows, values(*load(2).test));
}

TEST_F(CsvFiles, NamesFileLineColumnAndValue) {
  EXPECT_EQ(error_with("a,label,b\n1,x,2\n\n3,y,four\n"), file() + ":4:b: got 'four', expected a finite number");
  EXPECT_EQ(error_with("a,label\n1,x\n,y\n"), file() + ":3:a: got '', expected a finite number");
  EXPECT_EQ(error_with("a,label\n1e39,x\n"), file() + ":2:a: got '1e39', expected a finite number");
  EXPECT_EQ(error_with("a,label\nnan,x\n"), file() + ":2:a: got 'nan', expected a finite number");
  EXPECT_EQ(error_with("a,label\n-inf,x\n"), file() + ":2:a: got '-inf', expected a finite number");
  EXPECT_EQ(error_with("a,label\n1 2,x\n"), file() + ":2:a: got '1 2', expected a finite number");
  EXPECT_EQ(error_with("a,label\n1,\n"), file() + ":2:label: got '', expected a label");
}

TEST_F(CsvFiles, RejectsRowsOfAnotherLength) {
  EXPECT_EQ(error_with("a,label\n1,x\n1,x,2\n"), file() + ":3: has 3 fields, the header names 2");
  EXPECT_EQ(error_with("a,label\n1\n"), file() + ":2: has 1 fields, the header names 2");
  EXPECT_EQ(error_with("a,label\n1,\"x\n"), file() + ":2: a quote is not closed on its line");
}

TEST_F(CsvFiles, RejectsBadHeaders) {
  EXPECT_EQ(error_with("a,lable\n1,x\n"), file() + ":1: no column is named 'label' (option 'label'); did you mean 'lable'?");
  EXPECT_EQ(error_with("label,a,a\nx,1,2\n"), file() + ":1: two columns are named 'a'");
  EXPECT_THAT(error_with("label,\nx,1\n"), HasSubstr("a column has no name"));
  EXPECT_THAT(error_with("label\nx\n"), HasSubstr("has one column"));
  EXPECT_THAT(error_with("\n\n"), EndsWith(": has no header line"));
  EXPECT_THAT(error_with("a,label\n"), EndsWith(": has a header and no rows"));
}

TEST_F(CsvFiles, RejectsATestPartThatDoesNotFit) {
  const std::string test_file = (folder_ / "test.csv").string();
  test("a,label,b\n7,dog,8\n7,emu,8\n");
  EXPECT_EQ(error(), test_file + ":3:label: got 'emu', expected a label of the training file");
  test("b,label,a\n7,dog,8\n");
  EXPECT_THAT(error(), StartsWith(test_file + ": its feature columns differ from those of " + file()));
}

TEST_F(CsvFiles, RejectsMeasurementsAsLabels) {
  std::string text = "a,label\n";
  for (int i = 0; i < 10001; ++i) text += "1," + std::to_string(i) + ".5\n";
  EXPECT_THAT(error_with(text), HasSubstr("the column 'label' has 10001 different values"));
}

TEST_F(CsvFiles, WantsExactlyOneSourceOfTheTestPart) {
  options_["test_fraction"] = 0.5;
  EXPECT_THAT(error(), StartsWith("data.test: got both a test file and test_fraction"));
  options_.erase("test");
  options_["test_fraction"] = nullptr;
  EXPECT_THAT(error(), StartsWith("data.test: got no test file and test_fraction"));
  options_["test_fraction"] = 0.1;  // of 3 rows: rounds to none
  EXPECT_THAT(error(), HasSubstr("test_fraction takes 0 of 3 rows"));
}

TEST_F(CsvFiles, NamesAbsentFiles) {
  options_["train"] = (folder_ / "absent.csv").string();
  EXPECT_THAT(error(), StartsWith((folder_ / "absent.csv").string() + ": no such file"));
  options_.erase("train");
  EXPECT_EQ(error(), "data.train: missing; expected the path of a CSV file");
}

}  // namespace
}  // namespace fl
