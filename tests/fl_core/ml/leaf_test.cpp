#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fl_core/ml/dataset.h"
#include "fl_core/ml/datasets/leaf_reader.h"
#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using test::example;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

/// Builds LEAF documents user by user.
json leaf(const std::vector<std::tuple<std::string, json, json>>& users) {
  json document = {{"users", json::array()}, {"num_samples", json::array()}, {"user_data", json::object()}};
  for (const auto& [name, x, y] : users) {
    document["users"].push_back(name);
    document["num_samples"].push_back(y.size());
    document["user_data"][name] = {{"x", x}, {"y", y}};
  }
  return document;
}

class LeafFiles : public ::testing::Test {
 protected:
  LeafFiles() {
    train_ = leaf({{"f0", {{0.5, 1}, {2, 3}}, {4, 0}}, {"f1", {{5, 6}}, {1}}});
    test_ = leaf({{"f0", {{7, 8}}, {2}}});
    options_ = {{"name", "leaf"}, {"folder", folder_.path().string()}, {"shape", {2}}};
  }
  DataSplits load() {
    if (!train_.is_null()) test::write_file(folder_ / "train" / "b.json", train_.dump());
    if (!test_.is_null()) test::write_file(folder_ / "test" / "b.json", test_.dump());
    return data_sources().create(options_, "data")->load(1);
  }
  std::string error() { return error_of([&] { load(); }); }
  std::string error_with(const json& document) {
    train_ = document;
    return error();
  }
  std::string error_with_text(const std::string& text) {
    train_ = nullptr;
    test::write_file(folder_ / "train" / "b.json", text);
    return error();
  }
  std::string train_file() { return (folder_ / "train" / "b.json").string(); }

  test::TemporaryFolder folder_;
  json train_, test_, options_;
};

TEST_F(LeafFiles, LoadsVectorsWithTheirUsers) {
  const DataSplits splits = load();
  EXPECT_EQ(splits.train->size(), 3U);
  EXPECT_EQ(splits.train->shape().classes, 5);
  EXPECT_EQ(splits.test->shape().classes, 5);
  EXPECT_THAT(splits.train->labels(), ElementsAre(4, 0, 1));
  EXPECT_THAT(example(*splits.train, 0), ElementsAre(0.5F, 1));
  EXPECT_THAT(example(*splits.train, 2), ElementsAre(5, 6));
  EXPECT_THAT(splits.train->users(), ElementsAre(ElementsAre(0U, 1U), ElementsAre(2U)));
  EXPECT_TRUE(splits.test->users().empty());
  EXPECT_THAT(example(*splits.test, 0), ElementsAre(7, 8));
}

TEST_F(LeafFiles, ReadsAllFilesInTheOrderOfTheirNames) {
  test::write_file(folder_ / "train" / "a.json", leaf({{"f9", {{9, 9}}, {3}}}).dump());
  test::write_file(folder_ / "train" / "c.json.gz", test::gz(leaf({{"f8", {{8, 8}}, {2}}}).dump()));
  test::write_file(folder_ / "train" / "notes.txt", "not data");
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->labels(), ElementsAre(3, 4, 0, 1, 2));
  EXPECT_THAT(splits.train->users(),
              ElementsAre(ElementsAre(0U), ElementsAre(1U, 2U), ElementsAre(3U), ElementsAre(4U)));
}

TEST_F(LeafFiles, LeavesOutUsersWithoutExamplesAndKeysOfOtherTasks) {
  train_ = leaf({{"empty", json::array(), json::array()}, {"f0", {{1, 2}}, {0}}});
  train_["hierarchies"] = {{"a", "b"}, {1, nullptr}};
  train_["user_data"]["f0"]["raw"] = {{{"deep", {true}}}};
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->users(), ElementsAre(ElementsAre(0U)));
}

TEST_F(LeafFiles, LoadsTextsAsTokens) {
  // The alphabet of LEAF: newline is 0, space 1, 'A' 25, '}' 79.
  ASSERT_EQ(kLeafVocabulary, 80U);
  const std::string text = "\n A}" + std::string(76, ' ');
  train_ = leaf({{"romeo", {text}, {"A"}}, {"juliet", {text, text}, {"}", "\n"}}});
  test_ = leaf({{"romeo", {text}, {" "}}});
  options_.erase("shape");
  const DataSplits splits = load();
  EXPECT_THAT(splits.train->shape().input, ElementsAre(80));
  EXPECT_EQ(splits.train->shape().vocabulary, 80);
  EXPECT_EQ(splits.train->shape().classes, 80);
  // json orders keys: juliet first.
  EXPECT_THAT(splits.train->labels(), ElementsAre(79, 0, 25));
  const auto tokens = example(*splits.train, 2);
  EXPECT_THAT(std::vector<float>(tokens.begin(), tokens.begin() + 5), ElementsAre(0, 1, 25, 79, 1));
}

TEST_F(LeafFiles, RejectsTextsOutsideTheAlphabetOrLength) {
  options_.erase("shape");
  EXPECT_EQ(error_with(leaf({{"u", {std::string(79, 'a')}, {"a"}}})),
            train_file() + ": user_data.u.x[0]: is a text of 79 bytes, expected 80 characters (Shakespeare) or a list of numbers");
  EXPECT_THAT(error_with(leaf({{"u", {std::string(79, 'a') + "#"}, {"a"}}})), HasSubstr("has the character \"#\""));
  EXPECT_THAT(error_with(leaf({{"u", {std::string(80, 'a')}, {"ab"}}})), HasSubstr("user_data.u.y[0]: got the label \"ab\""));
}

TEST_F(LeafFiles, RejectsCountsThatDoNotAgree) {
  EXPECT_EQ(error_with(leaf({{"u", {{1, 2}}, {0, 1}}})), train_file() + ": the user \"u\" has 1 inputs in x and 2 labels in y");
  json document = leaf({{"u", {{1, 2}}, {0}}});
  document["num_samples"] = {2};
  EXPECT_THAT(error_with(document), HasSubstr("num_samples of the user \"u\" is 2.0, but the user has 1 examples"));
  document["num_samples"] = json::array();
  EXPECT_THAT(error_with(document), HasSubstr("lists 1 users, 0 counts in num_samples and 1 users in user_data"));
  document["num_samples"] = {1};
  document["users"] = {"v"};
  EXPECT_THAT(error_with(document), HasSubstr("user_data lacks the user \"v\""));
}

TEST_F(LeafFiles, RejectsVectorsOfAnotherSize) {
  EXPECT_THAT(error_with(leaf({{"u", {{1, 2}, {1}}, {0, 0}}})),
              StartsWith(train_file() + ": user_data.u.x[1]: has 1 numbers, expected 2"));
  EXPECT_THAT(error_with(leaf({{"u", {{1, 2, 3}}, {0}}})), HasSubstr("has 3 numbers, expected 2"));
}

TEST_F(LeafFiles, RejectsValuesOfTheWrongKind) {
  EXPECT_THAT(error_with(leaf({{"u", {{1, "a"}}, {0}}})), HasSubstr("user_data.u.x[0]: got \"a\", which does not belong there"));
  EXPECT_THAT(error_with(leaf({{"u", {{1, nullptr}}, {0}}})), HasSubstr("got null"));
  EXPECT_THAT(error_with(leaf({{"u", {{1, 1e300}}, {0}}})), HasSubstr("expected a finite number"));
  EXPECT_THAT(error_with(leaf({{"u", {{1, 2}}, {-1}}})), HasSubstr("user_data.u.y[0]: got the label -1.0"));
  EXPECT_THAT(error_with(leaf({{"u", {{1, 2}}, {0.5}}})), HasSubstr("expected an integer from 0"));
  EXPECT_THAT(error_with(leaf({{"u", {{1, 2}}, {"a"}}})), HasSubstr("texts and numbers are mixed"));
  EXPECT_THAT(error_with({{"user_data", 3}}), HasSubstr("user_data: got 3"));
  EXPECT_THAT(error_with({{"users", json::array()}}), HasSubstr("has no 'user_data'"));
  EXPECT_THAT(error_with(json::array({1})), HasSubstr("got a list, which does not belong there"));
}

TEST_F(LeafFiles, RejectsLabelsBeyondTheClasses) {
  options_["classes"] = 4;
  EXPECT_THAT(error(), HasSubstr("example 0 has the label 4, expected 0 to 3"));
}

TEST_F(LeafFiles, RejectsEveryTruncation) {
  const std::string whole = train_.dump();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(error_with_text(whole.substr(0, size)), StartsWith(train_file() + ": ")) << size;
  }
  EXPECT_THAT(error_with_text(whole + "x"), HasSubstr("not valid JSON"));
  EXPECT_THAT(error_with_text(R"({"user_data": {"u": {"x": [[1e999, 1]], "y": [0]}}})"), HasSubstr("not valid JSON"));
}

TEST_F(LeafFiles, RejectsNestingWithoutEnd) {
  EXPECT_THAT(error_with_text(R"({"extra": )" + std::string(100000, '[')), HasSubstr("nested deeper than 64"));
}

TEST_F(LeafFiles, RejectsAUserInTwoFiles) {
  test::write_file(folder_ / "train" / "a.json", leaf({{"f1", {{9, 9}}, {3}}}).dump());
  EXPECT_EQ(error(), train_file() + ": the user \"f1\" was already in " + (folder_ / "train" / "a.json").string());
}

TEST_F(LeafFiles, SaysHowToMakeTheDataWhenAbsent) {
  test_ = nullptr;
  EXPECT_THAT(error(), HasSubstr("test: no .json file there; make the data with LEAF's preprocess.sh"));
}

}  // namespace
}  // namespace fl
