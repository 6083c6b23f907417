// What every registered codec promises (fl_core/codec/codec.h). A new codec is picked up without an edit here.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/codec/codec.h"

namespace fl {
namespace {

constexpr std::size_t kSizes[] = {0, 1, 7, 1000, 5000};

class CodecContract : public testing::TestWithParam<std::string> {
 protected:
  CodecContract() : codec_(codecs().create({{"name", GetParam()}}, "codec")) {}

  /// Normal numbers of either sign with magnitudes in [2^-14, 2^6): what an update holds, and normal in binary16 too.
  static std::vector<float> normal_values(std::size_t count) {
    Rng rng(1, Purpose::synthetic_data, 0, count);
    std::vector<float> values(count);
    for (float& value : values) {
      const double magnitude = std::ldexp(1 + rng.uniform(), static_cast<int>(rng.below(20)) - 14);
      value = static_cast<float>(rng.below(2) == 0 ? magnitude : -magnitude);
    }
    return values;
  }
  Bytes encoded(std::span<const float> values, std::uint64_t seed = 1) const {
    Rng rng(seed, Purpose::codec, 3, 4);
    return codec_->encode(values, rng);
  }
  /// Whether the bytes decode; anything but success and ProtocolError fails the test by escaping.
  bool decodes(std::span<const std::byte> bytes, std::size_t count) const {
    // Of exactly the right size on the heap, so that a sanitizer sees a read or a write outside.
    const std::vector<std::byte> copy(bytes.begin(), bytes.end());
    std::vector<float> out(count);
    try {
      codec_->decode(copy, out);
      return true;
    } catch (const ProtocolError&) {
      return false;
    }
  }

  std::unique_ptr<Codec> codec_;
};

TEST_P(CodecContract, ComesBackWithinItsRelativeError) {
  for (const std::size_t count : kSizes) {
    const std::vector<float> values = normal_values(count);
    std::vector<float> got(count, std::numeric_limits<float>::quiet_NaN());
    codec_->decode(encoded(values).span(), got);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_LE(std::abs(double{got[i]} - double{values[i]}), codec_->relative_error() * std::abs(double{values[i]}))
          << values[i] << " at " << i << " of " << count;
    }
  }
}

TEST_P(CodecContract, KeepsZero) {
  const std::vector<float> zeros(100, 0.0F);
  std::vector<float> got(100, 1.0F);
  codec_->decode(encoded(zeros).span(), got);
  EXPECT_EQ(got, zeros);
}

TEST_P(CodecContract, StaysWithinMaxBytes) {
  for (const std::size_t count : kSizes) EXPECT_LE(encoded(normal_values(count)).size(), codec_->max_bytes(count)) << count;
}

TEST_P(CodecContract, GivesTheSameBytesForTheSameRandomStream) {
  const std::vector<float> values = normal_values(1000);
  const Bytes first = encoded(values);
  const Bytes second = encoded(values);
  ASSERT_EQ(first.size(), second.size());
  EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size()), 0);
}

TEST_P(CodecContract, RefusesEveryTruncationAndAnyLongerInput) {
  const Bytes bytes = encoded(normal_values(100));
  for (std::size_t size = 0; size < bytes.size(); ++size) EXPECT_FALSE(decodes(bytes.span().first(size), 100)) << size;
  std::vector<std::byte> longer(bytes.span().begin(), bytes.span().end());
  longer.push_back(std::byte{0});
  EXPECT_FALSE(decodes(longer, 100));
  EXPECT_FALSE(decodes(std::vector<std::byte>(1), 0));
}

TEST_P(CodecContract, RefusesAnotherCount) {
  const Bytes bytes = encoded(normal_values(100));
  EXPECT_TRUE(decodes(bytes.span(), 100));
  EXPECT_FALSE(decodes(bytes.span(), 99));
  EXPECT_FALSE(decodes(bytes.span(), 101));
  EXPECT_FALSE(decodes(bytes.span(), 0));
}

TEST_P(CodecContract, DecodesOrRefusesDamagedBytes) {
  const Bytes good = encoded(normal_values(64));
  Rng rng(2, Purpose::codec);
  for (int i = 0; i < 10000; ++i) {
    std::vector<std::byte> bytes(good.span().begin(), good.span().end());
    for (std::uint64_t damage = 1 + rng.below(4); damage > 0; --damage) {
      bytes[rng.below(bytes.size())] = static_cast<std::byte>(rng.below(256));
    }
    if (rng.below(4) == 0) bytes.resize(rng.below(2 * bytes.size()));
    decodes(bytes, 64);
  }
}

TEST_P(CodecContract, HandsOnWhatIsNotFinite) {
  // The receiver rejects an update by what it decodes, so a codec must not turn NaN or infinity into a harmless number.
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    const std::vector<float> values = {1, bad, 2};
    std::vector<float> got(3);
    codec_->decode(encoded(values).span(), got);
    EXPECT_FALSE(std::isfinite(got[0]) && std::isfinite(got[1]) && std::isfinite(got[2])) << bad;
  }
}

INSTANTIATE_TEST_SUITE_P(Registered, CodecContract, testing::ValuesIn(codecs().names()),
                         [](const auto& codec) { return codec.param; });

TEST(Codecs, IncludeIdentityAndFp16) {
  EXPECT_THAT(codecs().names(), testing::IsSupersetOf({std::string("identity"), std::string("fp16")}));
}

TEST(Fp16Codec, TurnsOverflowIntoInfinity) {
  // 65520 is half-way between 65504, the largest binary16, and 65536; to nearest even it overflows (IEEE 754 §4.3.1).
  const auto codec = codecs().create({{"name", "fp16"}}, "codec");
  Rng rng(1, Purpose::codec);
  const std::vector<float> values = {65519, 65520, -70000};
  std::vector<float> got(3);
  codec->decode(codec->encode(values, rng).span(), got);
  EXPECT_EQ(got, (std::vector<float>{65504, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}));
}

TEST(Fp16Codec, ReachesItsRelativeErrorButNotMore) {
  // 1 + 2^-11 is half-way between 1 and 1 + 2^-10 and goes to the even 1: relative error 2^-11 / (1 + 2^-11).
  const auto codec = codecs().create({{"name", "fp16"}}, "codec");
  Rng rng(1, Purpose::codec);
  const std::vector<float> values = {1 + 0x1p-11F};
  std::vector<float> got(1);
  codec->decode(codec->encode(values, rng).span(), got);
  EXPECT_EQ(got[0], 1.0F);
}

}  // namespace
}  // namespace fl
