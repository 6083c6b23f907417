#include "client/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using ::testing::HasSubstr;

class PolicyTest : public ::testing::Test {
 protected:
  PolicyTest() {
    sources.power_supplies = folder / "power";
    sources.load = folder / "loadavg";
    sources.local_hour = [this] { return hour; };
  }
  void supply(const std::string& name, const std::string& type, const std::string& file, const std::string& value) {
    test::write_file(folder.path() / "power" / name / "type", type + "\n");
    test::write_file(folder.path() / "power" / name / file, value + "\n");
  }
  Permission check(bool training = false) { return TrainingPolicy(limits, sources).check(training); }

  test::TemporaryFolder folder;
  ClientLimits limits;
  PolicySources sources;
  int hour = 12;
};

TEST_F(PolicyTest, AllowsEverythingByDefault) {
  EXPECT_TRUE(check().allowed);
  EXPECT_TRUE(TrainingPolicy(limits).check(true).allowed);
}

TEST_F(PolicyTest, KeepsToTheHoursOfADay) {
  limits.hours = "8-17";
  for (hour = 0; hour < 24; ++hour) EXPECT_EQ(check().allowed, hour >= 8 && hour < 17) << hour;
  hour = 20;
  EXPECT_EQ(check().reason, "outside of the allowed hours 8-17");
}

TEST_F(PolicyTest, KeepsToHoursThatPassMidnight) {
  limits.hours = "22-6";
  for (hour = 0; hour < 24; ++hour) EXPECT_EQ(check().allowed, hour >= 22 || hour < 6) << hour;
  limits.hours = "18-24";
  for (hour = 0; hour < 24; ++hour) EXPECT_EQ(check().allowed, hour >= 18) << hour;
}

TEST_F(PolicyTest, RefusesHoursThatAreNoWindow) {
  for (const char* hours : {"8", "8-", "-6", "8-8", "24-3", "3-25", "8-17h", "8--9", "eight-nine", "8-17-19", "008-17"}) {
    limits.hours = hours;
    EXPECT_THAT(test::error_of([&] { TrainingPolicy policy(limits); }), HasSubstr("limits.hours: got \"" + limits.hours + "\"")) << hours;
  }
}

TEST_F(PolicyTest, TrainsOnMainsPowerOnlyWhenAskedTo) {
  supply("BAT0", "Battery", "status", "Discharging");
  EXPECT_TRUE(check().allowed);
  limits.mains_power = true;
  EXPECT_EQ(check().reason, "on battery power");
  supply("AC", "Mains", "online", "0");
  EXPECT_FALSE(check().allowed);
  supply("AC", "Mains", "online", "1");
  EXPECT_TRUE(check().allowed);
}

TEST_F(PolicyTest, TakesAMachineWithoutABatteryForOneOnMains) {
  limits.mains_power = true;
  EXPECT_TRUE(check().allowed) << "no folder at all";
  supply("hid-mouse", "Battery", "scope", "Device");
  EXPECT_TRUE(check().allowed) << "the battery of a mouse";
}

TEST_F(PolicyTest, KeepsAwayFromABusyMachine) {
  limits.max_load = 1.5;
  limits.threads = 2;
  EXPECT_TRUE(check().allowed) << "a load that cannot be read";
  test::write_file(sources.load, "1.50 0.3 0.2 1/200 77\n");
  EXPECT_TRUE(check().allowed);
  test::write_file(sources.load, "1.51 0.3 0.2 1/200 77\n");
  EXPECT_EQ(check().reason, "load 1.51 is above the limit 1.50");
  // While it trains, two of the load are its own.
  EXPECT_TRUE(check(true).allowed);
  test::write_file(sources.load, "3.51 0.3 0.2 1/200 77\n");
  EXPECT_FALSE(check(true).allowed);
}

}  // namespace
}  // namespace fl
