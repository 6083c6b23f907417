#include "fl_core/config/json_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

std::string parse_error(const std::string& text) {
  return error_of([&] { parse_json(text, "file.json"); });
}

TEST(ParseJson, ReadsADocument) {
  EXPECT_EQ(parse_json(R"({"a": [1, 2.5, "x", true, null]})", "file.json"),
            json({{"a", json::array({1, 2.5, "x", true, nullptr})}}));
}

TEST(ParseJson, NamesLineAndColumnOfASyntaxError) {
  EXPECT_THAT(parse_error("{\n  \"a\": 1,\n  \"b\" 2\n}"),
              AllOf(StartsWith("file.json:3:7: not valid JSON"), HasSubstr("expected ':'")));
  EXPECT_THAT(parse_error("{\n \"a\": 1,\n}"), StartsWith("file.json:3:1: not valid JSON"));
  EXPECT_THAT(parse_error("{\"a\" 1}"), StartsWith("file.json:1:6: not valid JSON"));
  EXPECT_THAT(parse_error("{\n  \"a\": tru\n}"), StartsWith("file.json:2:11: not valid JSON")) << "the end of line 2";
}

TEST(ParseJson, RefusesWhatIsNotOneWholeDocument) {
  EXPECT_THAT(parse_error(""), HasSubstr("it is empty; expected an object"));
  EXPECT_THAT(parse_error("{\"a\": [1, 2"), HasSubstr("unexpected end of input"));
  EXPECT_THAT(parse_error("{} {}"), HasSubstr("expected end of input"));
  EXPECT_THAT(parse_error("{\"a\": NaN}"), HasSubstr("invalid literal"));
  EXPECT_THAT(parse_error("{\"a\": \"\xff\"}"), HasSubstr("ill-formed UTF-8"));
  EXPECT_EQ(parse_error("{\"a\": 1e999}"), "file.json: a number is too large; expected one below 1.8e308");
}

TEST(ParseJson, RefusesAKeyThatAppearsTwiceInOneObject) {
  EXPECT_THAT(parse_error(R"({"a": {"rate": 1, "rate": 2}})"),
              AllOf(StartsWith("file.json: "), HasSubstr("'rate' appears twice")));
  EXPECT_EQ(parse_error(R"([{"a": 1}, {"a": {"a": 2}}])"), "") << "the same key in different objects is fine";
}

TEST(ParseJson, RefusesDeepNesting) {
  const auto nested = [](std::size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_EQ(parse_error(nested(64)), "");
  EXPECT_THAT(parse_error(nested(65)), HasSubstr("nested deeper than 64 levels"));
  EXPECT_THAT(parse_error(nested(1'000'000)), HasSubstr("nested deeper than 64 levels"));
}

TEST(ReadJsonFile, NamesTheFileInEveryError) {
  const test::TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { read_json_file(folder / "no.json"); }),
              AllOf(HasSubstr("no.json"), HasSubstr("no such file")));
  write_file_atomically(folder / "bad.json", std::string("{\n]"));
  EXPECT_THAT(error_of([&] { read_json_file(folder / "bad.json"); }), HasSubstr("bad.json:2:1: not valid JSON"));
  write_file_atomically(folder / "huge.json", std::string((4U << 20U) + 1, ' '));
  EXPECT_THAT(error_of([&] { read_json_file(folder / "huge.json"); }),
              AllOf(HasSubstr("huge.json"), HasSubstr("the limit is 4194304")));
  write_file_atomically(folder / "good.json", std::string("{\"a\": 1}"));
  EXPECT_EQ(read_json_file(folder / "good.json"), json({{"a", 1}}));
}

json with_setting(json document, const std::string& setting) {
  apply_setting(document, setting);
  return document;
}

TEST(ApplySetting, SetsAValueOfAnyJsonType) {
  const json before = {{"a", {{"b", 0}}}};
  EXPECT_EQ(with_setting(before, "a.b=7"), json({{"a", {{"b", 7}}}}));
  EXPECT_EQ(with_setting(before, "a.b=0.5"), json({{"a", {{"b", 0.5}}}}));
  EXPECT_EQ(with_setting(before, "a.b=true"), json({{"a", {{"b", true}}}}));
  EXPECT_EQ(with_setting(before, "a.b=null"), json({{"a", {{"b", nullptr}}}}));
  EXPECT_EQ(with_setting(before, "a.b=[1,2]"), json({{"a", {{"b", {1, 2}}}}}));
  EXPECT_EQ(with_setting(before, "a={\"c\":1}"), json({{"a", {{"c", 1}}}}));
}

TEST(ApplySetting, TakesWhatIsNotJsonAsText) {
  EXPECT_EQ(with_setting({}, "name=fedavg"), json({{"name", "fedavg"}}));
  EXPECT_EQ(with_setting({}, "name=\"7\""), json({{"name", "7"}}));
  EXPECT_EQ(with_setting({}, "path=/a b=c"), json({{"path", "/a b=c"}})) << "only the first '=' divides";
  EXPECT_EQ(with_setting({}, "name="), json({{"name", ""}}));
}

TEST(ApplySetting, MakesTheObjectsOnTheWay) {
  EXPECT_EQ(with_setting(json::object(), "a.b.c=1"), json({{"a", {{"b", {{"c", 1}}}}}}));
  EXPECT_EQ(with_setting({{"a", nullptr}}, "a.b=1"), json({{"a", {{"b", 1}}}})) << "null becomes an object";
}

TEST(ApplySetting, ReachesIntoLists) {
  const json before = {{"stages", {{{"out", 1}}, {{"out", 2}}}}};
  EXPECT_EQ(with_setting(before, "stages.1.out=9"), json({{"stages", {{{"out", 1}}, {{"out", 9}}}}}));
  EXPECT_EQ(with_setting(before, "stages.0=5"), json({{"stages", {5, {{"out", 2}}}}}));
}

TEST(ApplySetting, NamesWhatIsWrongWithAPath) {
  const json before = {{"list", {1, 2}}, {"text", "x"}};
  const auto failure = [&](const std::string& setting) { return error_of([&] { with_setting(before, setting); }); };
  EXPECT_THAT(failure("list"), AllOf(HasSubstr("--set list"), HasSubstr("expected path=value")));
  EXPECT_THAT(failure("=1"), HasSubstr("expected path=value"));
  EXPECT_THAT(failure("a..b=1"), HasSubstr("a part of the path is empty"));
  EXPECT_THAT(failure("a.=1"), HasSubstr("a part of the path is empty"));
  for (const std::string index : {"2", "-1", "x", "99999999999999999999"}) {
    EXPECT_THAT(failure("list." + index + "=1"),
                AllOf(HasSubstr("list is a list of 2"), HasSubstr("got '" + index + "'")));
  }
  EXPECT_THAT(failure("text.key=1"), HasSubstr("text is \"x\", which has no keys"));
}

TEST(NearestHint, ProposesTheNearestWordOrListsAll) {
  const std::vector<std::string> known = {"learning_rate", "momentum", "epochs"};
  EXPECT_EQ(nearest_hint("lerning_rate", known), "; did you mean 'learning_rate'?");
  EXPECT_EQ(nearest_hint("epoch", known), "; did you mean 'epochs'?");
  EXPECT_EQ(nearest_hint("zzzzzzzz", known), "; known: learning_rate, momentum, epochs");
  EXPECT_EQ(nearest_hint("x", {}), "");
}

TEST(Shown, CutsLongValues) {
  EXPECT_EQ(shown("ab"), "\"ab\"");
  const std::string text = shown(std::string(500, 'x'));
  EXPECT_EQ(text.size(), 60U);
  EXPECT_THAT(text, testing::EndsWith("..."));
  EXPECT_NO_THROW(shown("\xff"));
}

}  // namespace
}  // namespace fl
