#include "client/participation_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/support/test_support.h"

namespace fl {
namespace {

TEST(ParticipationLog, CountsAndRemembers) {
  const test::TemporaryFolder folder;
  const auto file = folder / "participations.json";
  {
    ParticipationLog log(file);
    EXPECT_EQ(log.used("a"), 0U);
    log.add("a");
    log.add("a");
    log.add("b");
  }
  ParticipationLog again(file);
  EXPECT_EQ(again.used("a"), 2U);
  EXPECT_EQ(again.used("b"), 1U);
  EXPECT_EQ(again.used("c"), 0U);
}

TEST(ParticipationLog, WithoutAFileItCountsInMemory) {
  ParticipationLog log("");
  log.add("a");
  EXPECT_EQ(log.used("a"), 1U);
}

TEST(ParticipationLog, CountsNothingThatItCannotWrite) {
  const test::TemporaryFolder folder;
  ParticipationLog log(folder / "no-such-folder" / "participations.json");
  EXPECT_THROW(log.add("a"), IoError);
  EXPECT_EQ(log.used("a"), 0U);
}

TEST(ParticipationLog, RefusesADamagedFile) {
  const test::TemporaryFolder folder;
  for (const char* text : {"", "[1]", "{\"a\": -1}", "{\"a\": 1.5}", "{\"a\": \"1\"}", "{\"a\": 1"}) {
    std::ofstream(folder / "participations.json") << text;
    EXPECT_NE(test::error_of([&] { ParticipationLog log(folder / "participations.json"); }), "") << text;
  }
}

}  // namespace
}  // namespace fl
