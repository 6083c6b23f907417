#include "client/net/backoff.h"

#include <gtest/gtest.h>

#include <vector>

namespace fl {
namespace {

using std::chrono::milliseconds;

TEST(Backoff, DoublesItsWindowUpToAMinuteAndBeginsAnewAfterAReset) {
  Backoff backoff([] { return 0.5; });
  std::vector<std::int64_t> waits;
  for (int i = 0; i < 9; ++i) waits.push_back(backoff.next().count());
  // Half of 0.5, 1, 2, 4, 8, 16, 32, 60, 60 seconds.
  EXPECT_EQ(waits, (std::vector<std::int64_t>{250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000}));
  backoff.reset();
  EXPECT_EQ(backoff.next(), milliseconds(250));
}

TEST(Backoff, SpreadsOverTheWholeWindow) {
  double draw = 0;
  Backoff backoff([&] { return draw; });
  EXPECT_EQ(backoff.next(), milliseconds(0));
  draw = 0.999;
  EXPECT_EQ(backoff.next(), milliseconds(999));
  EXPECT_EQ(backoff.longest(), milliseconds(59'940));
}

TEST(Backoff, ComesBackNoEarlierThanTheServerAskedFor) {
  double draw = 0;
  Backoff backoff([&] { return draw; });
  EXPECT_EQ(backoff.asked_for(10), milliseconds(10'000));
  draw = 0.75;
  EXPECT_EQ(backoff.asked_for(10), milliseconds(17'500));
}

TEST(Backoff, DrawsFromTheSystemByDefault) {
  Backoff one;
  Backoff other;
  int differ = 0;
  // Two equal draws of a window of a minute have a chance of 1/60000 each, all 20 of 10^-95.
  for (int i = 0; i < 20; ++i) {
    const auto a = one.longest();
    const auto b = other.longest();
    EXPECT_GE(a.count(), 0);
    EXPECT_LT(a.count(), 60'000);
    differ += a == b ? 0 : 1;
  }
  EXPECT_GT(differ, 0);
}

}  // namespace
}  // namespace fl
