#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "simulations/cli/report_bars.h"
#include "simulations/cli/report_chart.h"
#include "simulations/cli/report_view.h"
#include "tests/report/markup.h"

namespace fl {
namespace {

using test::count_of;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

TEST(Decimate, KeepsFirstLastLowestAndHighestInOrder) {
  std::vector<report::Point> points;
  for (int i = 0; i < 10'000; ++i) points.push_back({static_cast<double>(i), static_cast<double>(i % 7)});
  points[1234].y = 100;
  points[8765].y = -100;
  const auto kept = report::decimate(points, 800);
  EXPECT_LE(kept.size(), 800U);
  EXPECT_GE(kept.size(), 700U);
  EXPECT_EQ(kept.front().x, 0);
  EXPECT_EQ(kept.back().x, 9999);
  bool high = false, low = false;
  for (std::size_t i = 0; i < kept.size(); ++i) {
    high = high || (kept[i].x == 1234 && kept[i].y == 100);
    low = low || (kept[i].x == 8765 && kept[i].y == -100);
    if (i > 0) {
      EXPECT_LT(kept[i - 1].x, kept[i].x);
    }
  }
  EXPECT_TRUE(high);
  EXPECT_TRUE(low);
}

TEST(Decimate, LeavesAFewPointsAloneAndKeepsLongGaps) {
  std::vector<report::Point> points(800, {1, 2});
  EXPECT_EQ(report::decimate(points, 800).size(), 800U);
  points.clear();
  for (int i = 0; i < 4000; ++i) points.push_back({static_cast<double>(i), i >= 1000 && i < 2000 ? kNan : 1.0});
  bool gap = false;
  for (const report::Point& point : report::decimate(points, 400)) gap = gap || std::isnan(point.y);
  EXPECT_TRUE(gap);
}

TEST(Axis, HasRoundStepsInItsUnit) {
  // 10 % … 86 %: a fifth is 15.2 points, so steps of 20, widened to 0 … 100.
  const report::Axis percent = report::make_axis(0.10, 0.86, report::Unit::percent, 5, true);
  EXPECT_DOUBLE_EQ(percent.low, 0);
  EXPECT_DOUBLE_EQ(percent.high, 1);
  ASSERT_EQ(percent.ticks.size(), 6U);
  EXPECT_EQ(percent.ticks[1].label, "20\u202f%");
  // 796 MB: a fifth is 159, so steps of 200 MB.
  const report::Axis bytes = report::make_axis(0, 796e6, report::Unit::bytes, 5, true);
  EXPECT_EQ(bytes.ticks.back().label, "800\u202fMB");
  EXPECT_EQ(bytes.ticks.size(), 5U);
  // Rounds are whole: no step below 1.
  const report::Axis rounds = report::make_axis(1, 3, report::Unit::count, 6, false);
  ASSERT_EQ(rounds.ticks.size(), 3U);
  EXPECT_EQ(rounds.ticks[0].label, "1");
  // Small steps get the decimals they need: a fifth of 0.004 is 0.0008, so steps of 0.001.
  EXPECT_EQ(report::make_axis(0.42, 0.424, report::Unit::plain, 5, true).ticks[1].label, "0.421");
}

TEST(Axis, CoversBoundsThatAreEqualOrMissing) {
  const report::Axis one = report::make_axis(0.5, 0.5, report::Unit::plain, 5, true);
  EXPECT_LT(one.low, 0.5);
  EXPECT_GT(one.high, 0.5);
  const report::Axis zero = report::make_axis(0, 0, report::Unit::plain, 5, true);
  EXPECT_EQ(zero.position(0), 0);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(report::make_axis(infinity, -infinity, report::Unit::plain, 5, true).high, 1);
  EXPECT_LE(report::make_axis(-1e299, 1e299, report::Unit::plain, 5, true).ticks.size(), 12U);
}

TEST(LineChart, TurnsLogarithmicWhenALossExplodes) {
  report::LineChart chart;
  chart.id = "x";
  chart.title = "loss";
  chart.may_be_logarithmic = true;
  chart.series = {{"loss", {}, {{1, 1}, {2, 10}, {3, 1000}}}};
  const std::string figure = report::render(chart);
  EXPECT_THAT(figure, HasSubstr("Logarithmic scale."));
  // Three decades over 220 units: 10 is a third of the way up, 232 − 73.3.
  EXPECT_THAT(figure, HasSubstr(" d=\"M64 232L260 158.7L456 12\""));
  chart.series[0].points[2].y = 999;
  EXPECT_THAT(report::render(chart), Not(HasSubstr("Logarithmic")));
}

TEST(StackedBars, ShowTheMeanOfRoundsThatShareABar) {
  report::StackedBars chart;
  chart.id = "x";
  chart.layers = {{"accepted", "bar o0", {}}};
  for (int i = 1; i <= 240; ++i) {
    chart.rounds.push_back(i);
    chart.layers[0].counts.push_back(i % 2 == 0 ? 10 : 20);
  }
  const std::string figure = report::render(chart);  // 120 bars of two rounds each
  EXPECT_EQ(count_of(figure, "mean of rounds"), 120U);
  EXPECT_THAT(figure, HasSubstr("mean of rounds 1 to 2: accepted 15"));
}

TEST(HeatMap, SharesColumnsAmongManyClasses) {
  report::HeatMap map;
  map.id = "x";
  map.clients = {3};
  map.counts = {std::vector<double>(1000, 1.0)};  // ten classes a column
  const std::string figure = report::render(map);
  EXPECT_EQ(count_of(figure, "client 3, class"), 100U);
  EXPECT_THAT(figure, HasSubstr("client 3, class 990: 10"));
}

TEST(Percentile, IsTheNearestRank) {
  const std::vector<double> ten = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  EXPECT_EQ(percentile(ten, 0.1), 1);
  EXPECT_EQ(percentile(ten, 0.11), 2);
  EXPECT_EQ(percentile(ten, 0.9), 9);
  EXPECT_EQ(percentile(ten, 1), 10);
  EXPECT_EQ(percentile(std::vector<double>{5}, 0.1), 5);
  EXPECT_TRUE(std::isnan(percentile(std::vector<double>{}, 0.5)));
}

TEST(ReportText, WritesNumbersAsPeopleReadThem) {
  EXPECT_EQ(report::number(0.44632), "0.4463");
  EXPECT_EQ(report::number(-1.5), "−1.5");
  EXPECT_EQ(report::number(123456.0), "123456");
  EXPECT_EQ(report::number(kNan), "NaN");
  EXPECT_EQ(report::count(1234567), "1\u202f234\u202f567");
  EXPECT_EQ(report::count(999), "999");
  EXPECT_EQ(report::bytes(999), "999\u202fB");
  EXPECT_EQ(report::bytes(999'600), "1\u202fMB");
  EXPECT_EQ(report::bytes(1.234e9), "1.23\u202fGB");
  EXPECT_EQ(report::duration(0.5234), "0.523\u202fs");
  EXPECT_EQ(report::duration(119.6), "2\u202fmin 0\u202fs");
  EXPECT_EQ(report::duration(7500), "2\u202fh 5\u202fmin");
}

TEST(ReportText, ShortensByCharacters) {
  EXPECT_EQ(report::shortened("äöü", 3), "äöü");
  EXPECT_EQ(report::shortened("äöüß", 3), "äö…");
}

}  // namespace
}  // namespace fl
