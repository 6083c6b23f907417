#include "client/masked_rounds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "fl_core/base/error.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::AllOf;
using testing::HasSubstr;

const std::string kA(32, 'a');
const std::string kB(32, 'b');

/// 32 hex digits that differ with `i`.
std::string run_of(std::size_t i) {
  const std::string digits = std::to_string(i);
  return std::string(32 - digits.size(), '0') + digits;
}

TEST(MaskedRounds, RemembersTheNewestRoundOfEachRun) {
  const test::TemporaryFolder folder;
  const auto file = folder / "masked_rounds.json";
  {
    MaskedRounds rounds(file);
    EXPECT_EQ(rounds.newest(kA), 0U);
    rounds.note(kA, 3);
    rounds.note(kB, UINT32_MAX);
    rounds.note(kA, 7);
    EXPECT_EQ(rounds.newest(kA), 7U);
  }
  MaskedRounds again(file);
  EXPECT_EQ(again.newest(kA), 7U);
  EXPECT_EQ(again.newest(kB), UINT32_MAX);
  EXPECT_EQ(again.newest(run_of(1)), 0U);
}

TEST(MaskedRounds, NeverGoesBack) {
  const test::TemporaryFolder folder;
  MaskedRounds rounds(folder / "masked_rounds.json");
  rounds.note(kA, 7);
  rounds.note(kA, 6);
  EXPECT_EQ(rounds.newest(kA), 7U);
  EXPECT_EQ(MaskedRounds(folder / "masked_rounds.json").newest(kA), 7U);
}

TEST(MaskedRounds, ForgetsTheRunThatWasNotedFirstWhenThereAreTooMany) {
  const test::TemporaryFolder folder;
  const auto file = folder / "masked_rounds.json";
  MaskedRounds rounds(file);
  for (std::size_t i = 0; i < MaskedRounds::kRuns; ++i) rounds.note(run_of(i), 1);
  rounds.note(run_of(0), 2);  // so that run 1 is the oldest
  rounds.note(kA, 5);
  for (const MaskedRounds& now : {rounds, MaskedRounds(file)}) {
    EXPECT_EQ(now.newest(run_of(1)), 0U);
    EXPECT_EQ(now.newest(run_of(0)), 2U);
    EXPECT_EQ(now.newest(run_of(2)), 1U);
    EXPECT_EQ(now.newest(kA), 5U);
  }
}

TEST(MaskedRounds, WithoutAFileItRemembersInMemory) {
  MaskedRounds rounds("");
  rounds.note(kA, 3);
  EXPECT_EQ(rounds.newest(kA), 3U);
}

TEST(MaskedRounds, NotesNothingThatItCannotWrite) {
  const test::TemporaryFolder folder;
  MaskedRounds rounds(folder / "no-such-folder" / "masked_rounds.json");
  EXPECT_THROW(rounds.note(kA, 3), IoError);
  EXPECT_EQ(rounds.newest(kA), 0U);
}

TEST(MaskedRounds, RefusesADamagedFile) {
  const test::TemporaryFolder folder;
  const auto file = folder / "masked_rounds.json";
  const auto error_for = [&](const std::string& text) {
    std::ofstream(file) << text;
    return test::error_of([&] { MaskedRounds rounds(file); });
  };
  const std::string good = R"({"run": ")" + kA + R"(", "round": 3})";
  EXPECT_EQ(error_for("[" + good + "]"), "");
  EXPECT_EQ(error_for("[]"), "");
  for (const std::string text : {"", "[", "{}", "3", "[[]]", "[3]", "[{}]"}) EXPECT_NE(error_for(text), "") << text;
  for (const std::string round : {"-1", "1.5", "\"3\"", "null", "4294967296"}) {
    EXPECT_THAT(error_for(R"([{"run": ")" + kA + R"(", "round": )" + round + "}]"),
                AllOf(HasSubstr("masked_rounds.json: 0: got"), HasSubstr("restore the file, or leave the federation")))
        << round;
  }
  for (const std::string run : {"3", "\"a\"", "null"}) EXPECT_THAT(error_for(R"([{"run": )" + run + R"(, "round": 3}])"), HasSubstr("32 hex digits")) << run;
  EXPECT_THAT(error_for("[" + good + ", " + good + "]"), HasSubstr("each run once"));
  EXPECT_THAT(error_for(R"([{"run": ")" + kA + R"(", "round": 3, "more": 1}])"), HasSubstr("32 hex digits"));
  std::string many = "[";
  for (std::size_t i = 0; i <= MaskedRounds::kRuns; ++i) many += (i == 0 ? "" : ",") + (R"({"run": ")" + run_of(i) + R"(", "round": 1})");
  EXPECT_THAT(error_for(many + "]"), HasSubstr("at most 64 runs"));
}

}  // namespace
}  // namespace fl
