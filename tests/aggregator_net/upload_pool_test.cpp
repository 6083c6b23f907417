#include "aggregator/net/upload_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

namespace fl {
namespace {

TEST(UploadPool, LendsAsManyBuffersAsThereAreCredits) {
  int freed = 0;
  UploadPool pool(2, [&] { ++freed; });
  auto a = pool.take(100);
  auto b = pool.take(100);
  ASSERT_TRUE(a);
  ASSERT_TRUE(b);
  EXPECT_FALSE(pool.take(1));
  EXPECT_EQ(pool.lent(), 2U);
  a = UploadPool::Lease();
  EXPECT_EQ(freed, 1);
  EXPECT_TRUE(pool.take(1));
}

TEST(UploadPool, ASharedBufferCarriesItsCredit) {
  int freed = 0;
  UploadPool pool(1, [&] { ++freed; });
  auto lease = pool.take(3);
  lease.bytes()[2] = std::byte{9};
  SharedBuffer shared = std::move(lease).share();
  const SharedBuffer copy = shared;
  shared = SharedBuffer();
  EXPECT_FALSE(pool.take(1));
  EXPECT_EQ(copy.span()[2], std::byte{9});
  EXPECT_EQ(freed, 0);
}

TEST(UploadPool, ReusesABufferThatIsLargeEnough) {
  UploadPool pool(1, nullptr);
  const std::byte* first = nullptr;
  {
    const auto lease = pool.take(4096);
    first = lease.bytes().data();
  }
  const auto smaller = pool.take(100);
  EXPECT_EQ(smaller.bytes().data(), first);
  EXPECT_EQ(smaller.bytes().size(), 100U);
}

TEST(UploadPool, MayGoBeforeWhatItLent) {
  SharedBuffer kept;
  {
    UploadPool pool(1, [] { FAIL() << "nobody listens any more"; });
    kept = pool.take(8).share();
  }
  EXPECT_EQ(kept.size(), 8U);
}

TEST(UploadPool, KeepsItsCountWithManyThreads) {
  std::atomic<int> freed = 0;
  UploadPool pool(3, [&] { ++freed; });
  std::atomic<int> taken = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 1000; ++i) {
        const auto lease = pool.take(64);
        if (!lease) continue;
        ++taken;
        lease.bytes()[0] = std::byte{1};
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(freed, taken);
  EXPECT_EQ(pool.lent(), 0U);
}

}  // namespace
}  // namespace fl
