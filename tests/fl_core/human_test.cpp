#include "fl_core/base/human.h"

#include <gtest/gtest.h>

#include <limits>

namespace fl {
namespace {

TEST(Human, WritesBytesWithThreeDigitsAndDecimalUnits) {
  EXPECT_EQ(human_bytes(0), "0 B");
  EXPECT_EQ(human_bytes(999), "999 B");
  EXPECT_EQ(human_bytes(1000), "1.00 kB");
  EXPECT_EQ(human_bytes(12345), "12.3 kB");
  EXPECT_EQ(human_bytes(999499), "999 kB");
  EXPECT_EQ(human_bytes(999600), "1.00 MB");
  EXPECT_EQ(human_bytes(2e18), "2000 PB");
}

TEST(Human, WritesSecondsAsPeopleSayThem) {
  EXPECT_EQ(human_seconds(0.42), "0.42 s");
  EXPECT_EQ(human_seconds(4.2), "4.2 s");
  EXPECT_EQ(human_seconds(59.4), "59 s");
  EXPECT_EQ(human_seconds(200), "3 min 20 s");
  EXPECT_EQ(human_seconds(7500), "2 h 05 min");
  EXPECT_EQ(human_seconds(std::numeric_limits<double>::infinity()), "?");
}

TEST(Human, GroupsThousands) {
  EXPECT_EQ(human_count(999), "999");
  EXPECT_EQ(human_count(1663370), "1 663 370");
  EXPECT_EQ(human_count(-1000), "-1 000");
}

TEST(Human, WritesSharesAsPercent) {
  EXPECT_EQ(percent(0.8461), "84.6 %");
  EXPECT_EQ(percent(1), "100.0 %");
}

TEST(HumanNumber, KeepsTheDigitsAskedFor) {
  EXPECT_EQ(human_number(7.1249), "7.12");
  EXPECT_EQ(human_number(8), "8");
  EXPECT_EQ(human_number(0.00310499), "0.0031");
  EXPECT_EQ(human_number(12.3456789, 6), "12.3457");
}

}  // namespace
}  // namespace fl
