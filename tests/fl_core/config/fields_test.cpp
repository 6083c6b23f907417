#include "fl_core/config/fields.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::AllOf;
using testing::HasSubstr;

struct Inner {
  std::int64_t depth = 1;
  void fields(Fields& f) { f.integer("depth", depth, {1, 9}, "how deep"); }
};

/// One key of every kind.
struct Options {
  std::int64_t epochs = 5;
  double rate = 0.1;
  bool shuffle = true;
  std::string title = "none";
  std::string mode = "fast";
  std::optional<std::int64_t> seed;
  std::optional<double> deadline_s;
  std::vector<double> pair = {0.5, 1};
  std::vector<std::int64_t> sizes;
  std::int64_t offset = 0;
  Inner inner;
  bool has_extra = false;
  Inner extra;
  json stages = json::array();

  void fields(Fields& f) {
    f.integer("epochs", epochs, {1, 10}, "passes over the data");
    f.number("rate", rate, {0, 1, true}, "step size");
    f.flag("shuffle", shuffle, "whether to shuffle");
    f.text("title", title, "shown in reports");
    f.choice("mode", mode, {"fast", "exact"}, "which way");
    f.optional_integer("seed", seed, {0}, "seed, or null for none");
    f.optional_number("deadline_s", deadline_s, {0}, "limit", "s");
    f.numbers("pair", pair, 2, {0, 1}, "two shares");
    f.integers("sizes", sizes, 0, {1}, "any number of sizes");
    f.integer("offset", offset, {}, "any integer");
    f.group(
        "inner", [&](Fields& g) { inner.fields(g); }, "nested");
    f.optional_group(
        "extra", has_extra, [&](Fields& g) { extra.fields(g); }, "nested, may be absent");
    f.raw("stages", stages, "a list of stages", "checked elsewhere");
  }
};

Options read(const json& object) {
  Options options;
  read_fields(object, "root", [&](Fields& f) { options.fields(f); });
  return options;
}

std::string failure(const json& object) {
  return error_of([&] { read(object); });
}

TEST(ReadFields, KeepsDefaultsOfAbsentKeys) {
  const Options options = read(json::object());
  EXPECT_EQ(options.epochs, 5);
  EXPECT_EQ(options.mode, "fast");
  EXPECT_FALSE(options.seed.has_value());
  EXPECT_FALSE(options.has_extra);
}

TEST(ReadFields, ReadsEveryKindOfKey) {
  const Options options = read({{"epochs", 7},
                                {"rate", 1},
                                {"shuffle", false},
                                {"title", "t"},
                                {"mode", "exact"},
                                {"seed", 3},
                                {"deadline_s", 2.5},
                                {"pair", {0, 1}},
                                {"sizes", {4, 5, 6}},
                                {"inner", {{"depth", 2}}},
                                {"extra", {{"depth", 3}}},
                                {"stages", {1, "x"}}});
  EXPECT_EQ(options.epochs, 7);
  EXPECT_EQ(options.rate, 1.0) << "an integer is a number";
  EXPECT_FALSE(options.shuffle);
  EXPECT_EQ(options.title, "t");
  EXPECT_EQ(options.mode, "exact");
  EXPECT_EQ(options.seed, 3);
  EXPECT_EQ(options.deadline_s, 2.5);
  EXPECT_EQ(options.pair, (std::vector<double>{0, 1}));
  EXPECT_EQ(options.sizes, (std::vector<std::int64_t>{4, 5, 6}));
  EXPECT_EQ(options.inner.depth, 2);
  EXPECT_TRUE(options.has_extra);
  EXPECT_EQ(options.extra.depth, 3);
  EXPECT_EQ(options.stages, json({1, "x"}));
}

TEST(ReadFields, TakesNullWhereAValueIsOptional) {
  const Options options = read({{"seed", nullptr}, {"deadline_s", nullptr}, {"extra", nullptr}});
  EXPECT_FALSE(options.seed.has_value());
  EXPECT_FALSE(options.deadline_s.has_value());
  EXPECT_FALSE(options.has_extra);
  EXPECT_TRUE(read({{"extra", json::object()}}).has_extra);
}

TEST(ReadFields, NamesPathValueAndNearestKeyOfAnUnknownKey) {
  EXPECT_EQ(failure({{"epoch", 3}}), "root.epoch: unknown key (value 3); did you mean 'epochs'?");
  EXPECT_EQ(failure({{"inner", {{"dept", 3}}}}), "root.inner.dept: unknown key (value 3); did you mean 'depth'?");
  EXPECT_THAT(failure({{"zzzzzzzzzz", 3}}),
              AllOf(HasSubstr("root.zzzzzzzzzz: unknown key"), HasSubstr("known: epochs, rate")));
}

TEST(ReadFields, NamesPathValueAndExpectationOfAWrongType) {
  EXPECT_EQ(failure({{"epochs", "5"}}), "root.epochs: got \"5\", expected an integer from 1 to 10");
  EXPECT_EQ(failure({{"epochs", 5.0}}), "root.epochs: got 5.0, expected an integer from 1 to 10");
  EXPECT_EQ(failure({{"epochs", nullptr}}), "root.epochs: got null, expected an integer from 1 to 10");
  EXPECT_EQ(failure({{"rate", true}}), "root.rate: got true, expected a number above 0.0 and of at most 1.0");
  EXPECT_EQ(failure({{"shuffle", 1}}), "root.shuffle: got 1, expected true or false");
  EXPECT_EQ(failure({{"title", 1}}), "root.title: got 1, expected a text in quotes");
  EXPECT_EQ(failure({{"seed", "x"}}), "root.seed: got \"x\", expected an integer of at least 0");
  EXPECT_EQ(failure({{"inner", 1}}), "root.inner: got 1, expected an object {…}");
  EXPECT_EQ(failure({{"extra", {1}}}), "root.extra: got [1], expected an object {…}");
  EXPECT_EQ(failure(json::array()), "root: got [], expected an object {…}");
}

TEST(ReadFields, ChecksRangesAtTheirEdges) {
  EXPECT_EQ(failure({{"epochs", 1}}), "");
  EXPECT_EQ(failure({{"epochs", 10}}), "");
  EXPECT_THAT(failure({{"epochs", 0}}), HasSubstr("root.epochs: got 0"));
  EXPECT_THAT(failure({{"epochs", 11}}), HasSubstr("root.epochs: got 11"));
  EXPECT_THAT(failure({{"rate", 0}}), HasSubstr("root.rate: got 0")) << "the low end is excluded";
  EXPECT_EQ(failure({{"rate", 1}}), "");
  EXPECT_THAT(failure({{"rate", 1.0000001}}), HasSubstr("root.rate: got 1.0000001"));
}

TEST(ReadFields, RefusesIntegersBeyond64Bits) {
  EXPECT_EQ(failure({{"seed", INT64_MAX}}), "");
  EXPECT_EQ(failure({{"offset", INT64_MIN}}), "");
  EXPECT_EQ(failure({{"offset", 1ULL << 63}}), "root.offset: got 9223372036854775808, expected an integer");
  EXPECT_EQ(failure({{"offset", UINT64_MAX}}), "root.offset: got 18446744073709551615, expected an integer");
  EXPECT_THAT(failure({{"seed", UINT64_MAX}}), HasSubstr("root.seed: got 18446744073709551615"));
}

TEST(ReadFields, RefusesNumbersThatAreNotFinite) {
  EXPECT_THAT(failure({{"deadline_s", HUGE_VAL}}), HasSubstr("root.deadline_s"));
  EXPECT_THAT(failure({{"rate", std::nan("")}}), HasSubstr("root.rate"));
}

TEST(ReadFields, NamesTheChoices) {
  EXPECT_EQ(failure({{"mode", "exat"}}),
            "root.mode: got \"exat\", expected one of \"fast\", \"exact\"; did you mean 'exact'?");
  EXPECT_EQ(failure({{"mode", 1}}), "root.mode: got 1, expected one of \"fast\", \"exact\"");
}

TEST(ReadFields, ChecksListsAndTheirElements) {
  EXPECT_EQ(failure({{"pair", {1}}}), "root.pair: got [1], expected a list of 2 numbers");
  EXPECT_EQ(failure({{"pair", 1}}), "root.pair: got 1, expected a list of 2 numbers");
  EXPECT_EQ(failure({{"pair", {0, 2}}}), "root.pair.1: got 2, expected a number from 0.0 to 1.0");
  EXPECT_EQ(failure({{"sizes", {1, 0}}}), "root.sizes.1: got 0, expected an integer of at least 1");
  EXPECT_EQ(failure({{"sizes", json::array()}}), "");
}

TEST(WriteFields, GivesWhatReadsBackToTheSame) {
  Options options = read({{"epochs", 7}, {"seed", 3}, {"sizes", {4}}, {"extra", {{"depth", 3}}}});
  const json written = write_fields([&](Fields& f) { options.fields(f); });
  EXPECT_EQ(written.at("epochs"), 7);
  EXPECT_EQ(written.at("rate"), 0.1) << "defaults are written too";
  EXPECT_EQ(written.at("deadline_s"), nullptr);
  EXPECT_EQ(written.at("extra"), json({{"depth", 3}}));
  Options again = read(written);
  EXPECT_EQ(write_fields([&](Fields& f) { again.fields(f); }), written);
}

TEST(WriteFields, WritesAnAbsentGroupAsNull) {
  Options options;
  EXPECT_EQ(write_fields([&](Fields& f) { options.fields(f); }).at("extra"), nullptr);
}

TEST(DescribeFields, SaysTypeDefaultUnitAndMeaningOfEveryKey) {
  Options options;
  const json schema = describe_fields([&](Fields& f) { options.fields(f); });
  EXPECT_EQ(schema.at("epochs"),
            json({{"type", "an integer from 1 to 10"}, {"default", 5}, {"meaning", "passes over the data"}}));
  EXPECT_EQ(
      schema.at("deadline_s"),
      json({{"type", "a number of at least 0.0, or null"}, {"default", nullptr}, {"meaning", "limit"}, {"unit", "s"}}));
  EXPECT_EQ(schema.at("mode").at("type"), "one of fast exact");
  EXPECT_EQ(schema.at("inner").at("keys").at("depth").at("default"), 1);
  EXPECT_EQ(schema.at("extra").at("default"), nullptr);
  const json written = write_fields([&](Fields& f) { options.fields(f); });
  EXPECT_EQ(schema.size(), written.size());
  for (const auto& [key, entry] : schema.items()) {
    EXPECT_TRUE(entry.contains("type") && entry.contains("meaning")) << key;
  }
}

}  // namespace
}  // namespace fl
