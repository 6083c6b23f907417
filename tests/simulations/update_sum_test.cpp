#include "simulations/update_sum.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <latch>
#include <nlohmann/json.hpp>
#include <thread>

#include "fl_core/base/rng.h"

namespace fl {
namespace {

constexpr std::size_t kParameters = 500;
constexpr std::size_t kThreads = 4;
constexpr std::size_t kUpdates = 200;  // of a thread

/// Updates by a codec, and the plain sum of what it makes of them.
class UpdateSumTest : public ::testing::TestWithParam<std::string> {
 protected:
  UpdateSumTest() : codec_(codecs().create({{"name", GetParam()}}, "codec")), expected_(kParameters, kThreads * kUpdates) {
    for (std::uint64_t i = 0; i < kThreads * kUpdates; ++i) {
      Rng values(3, Purpose::synthetic_data, 0, i);
      std::vector<float> delta(kParameters);
      for (float& value : delta) value = static_cast<float>(values.normal());
      UpdateHeader header;
      header.weight = static_cast<std::uint32_t>(1 + i % 7);
      header.codec = GetParam();
      Rng rng(3, Purpose::codec, 0, i);
      Bytes encoded = codec_->encode(delta, rng);
      codec_->decode(encoded.span(), delta);
      EXPECT_EQ(expected_.add(delta, header.weight), ExactSumError::none);
      updates_.push_back(encode_update(header, SharedBuffer(std::move(encoded))));
    }
  }

  UpdateSum make(std::size_t threads) const { return UpdateSum(*codec_, kParameters, kThreads * kUpdates, ExactSum::kDefaultBoundBits, threads); }

  void add_all(UpdateSum& sum) const {
    std::latch begin(kThreads);
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        begin.arrive_and_wait();
        for (std::size_t i = t; i < updates_.size(); i += kThreads) EXPECT_TRUE(sum.add(updates_[i]));
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  void expect_total(UpdateSum& sum) const {
    const ExactSum& total = sum.total();
    EXPECT_TRUE(std::ranges::equal(total.raw(), expected_.raw()));
    EXPECT_EQ(total.terms(), expected_.terms());
    EXPECT_EQ(total.total_weight(), expected_.total_weight());
  }

  std::unique_ptr<Codec> codec_;
  ExactSum expected_;
  std::vector<Message> updates_;
};

TEST_P(UpdateSumTest, IsTheSameForAnyNumberOfShares) {
  for (const std::size_t threads : {1U, 2U, 4U}) {
    UpdateSum sum = make(threads);
    EXPECT_EQ(sum.shares(), threads);
    add_all(sum);
    expect_total(sum);
    expect_total(sum);  // asking changes nothing
    sum.clear();
    EXPECT_EQ(sum.total().terms(), 0U);
    add_all(sum);
    expect_total(sum);
  }
}

TEST_P(UpdateSumTest, LeavesABadUpdateToTheEngine) {
  UpdateSum sum = make(2);
  const Message& good = updates_[0];
  EXPECT_FALSE(sum.add(Message(MessageType::failed, 0, good.header(), good.body())));
  EXPECT_FALSE(sum.add(Message(MessageType::update, 1, good.header(), good.body()))) << "its header is of another round";
  EXPECT_FALSE(sum.add(Message(MessageType::update, 0, good.header(), good.body().slice(0, good.body().size() - 1))));
  EXPECT_EQ(sum.total().terms(), 0U);
}

INSTANTIATE_TEST_SUITE_P(Codecs, UpdateSumTest, ::testing::Values("identity", "fp16"), [](const auto& of) { return of.param; });

TEST(UpdateSum, SharesNoMoreThanItsMemory) {
  const auto codec = codecs().create({{"name", "identity"}}, "codec");
  const auto shares = [&](std::size_t parameters) { return UpdateSum(*codec, parameters, 1, ExactSum::kDefaultBoundBits, 64).shares(); };
  EXPECT_EQ(shares(7850), 64U);
  // 8 MiB are 1 048 576 parameters: so many together.
  EXPECT_EQ(shares(100'000), 10U);
  EXPECT_EQ(shares(600'000), 1U);
  EXPECT_EQ(shares(50'000'000), 1U);
}

}  // namespace
}  // namespace fl
