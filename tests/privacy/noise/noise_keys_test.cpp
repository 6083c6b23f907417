// The old interface is the only one that replaces the generator in a whole process without a configuration file.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "privacy/noise/noise_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/rand.h>

#include <set>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

/// OpenSSL's generator replaced by one that answers with `result` and gives no bytes, until the end of the scope.
class BrokenGenerator {
 public:
  explicit BrokenGenerator(int result) {
    result_ = result;
    RAND_set_rand_method(&kMethod);
  }
  ~BrokenGenerator() { RAND_set_rand_method(RAND_OpenSSL()); }
  BrokenGenerator(const BrokenGenerator&) = delete;
  BrokenGenerator& operator=(const BrokenGenerator&) = delete;

 private:
  static int fail(unsigned char*, int) { return result_; }
  static int ready() { return 1; }
  static inline int result_ = 0;
  static constexpr RAND_METHOD kMethod = {nullptr, &fail, nullptr, nullptr, &fail, &ready};
};

TEST(SecureNoiseKeys, NeverRepeatForEqualArguments) {
  SecureNoiseKeys keys;
  SecureNoiseKeys others;
  std::set<NoiseKey> seen;
  for (int i = 0; i < 1000; ++i) {
    seen.insert(keys.key(NoisePurpose::central, 1, 0));
    seen.insert(others.key(NoisePurpose::central, 1, 0));
  }
  EXPECT_EQ(seen.size(), 2000U);
  EXPECT_TRUE(keys.is_secure());
}

TEST(SecureNoiseKeys, AreUniformBits) {
  // 2000 keys of 256 bits: each bit position is 1 in 1000 ± 22 of them (one standard deviation); 6 of those are 1e-9 each.
  SecureNoiseKeys keys;
  std::vector<int> ones(256);
  for (int i = 0; i < 2000; ++i) {
    const NoiseKey key = keys.key(NoisePurpose::device, 1, 1);
    for (std::size_t bit = 0; bit < 256; ++bit) ones[bit] += std::to_integer<int>(key[bit / 8] >> (bit % 8) & std::byte{1});
  }
  for (const int count : ones) EXPECT_NEAR(count, 1000, 6 * 22.4);
}

TEST(SecureNoiseKeys, ThrowWhenTheGeneratorFails) {
  SecureNoiseKeys keys;
  for (const int result : {0, -1}) {
    const BrokenGenerator broken(result);
    EXPECT_THROW(keys.key(NoisePurpose::central, 1, 0), IoError) << result;
    EXPECT_THAT(test::error_of([&] { keys.key(NoisePurpose::central, 1, 0); }), HasSubstr("random generator failed"));
  }
  EXPECT_NO_THROW(keys.key(NoisePurpose::central, 1, 0)) << "the control: the generator works again";
}

TEST(SeededNoiseKeys, AreTheHashOfTheirArguments) {
  // printf 'tributary noise\x07\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0' | sha256sum
  SeededNoiseKeys keys(7);
  EXPECT_EQ(to_hex(keys.key(NoisePurpose::device, 3, 258)), "7e2dc7d2bbb672a0cbd27e14fdccf4699c2106887607df12b973b14cdf225a18");
  EXPECT_FALSE(keys.is_secure());
}

TEST(SeededNoiseKeys, DifferInEachArgumentAndInNothingElse) {
  SeededNoiseKeys keys(1);
  const NoiseKey key = keys.key(NoisePurpose::central, 2, 3);
  EXPECT_EQ(SeededNoiseKeys(1).key(NoisePurpose::central, 2, 3), key);
  EXPECT_NE(SeededNoiseKeys(2).key(NoisePurpose::central, 2, 3), key);
  EXPECT_NE(keys.key(NoisePurpose::clip_count, 2, 3), key);
  EXPECT_NE(keys.key(NoisePurpose::central, 3, 3), key);
  EXPECT_NE(keys.key(NoisePurpose::central, 2, 4), key);
  // No two arguments can stand for each other, not even with a carry from one into the next.
  EXPECT_NE(keys.key(NoisePurpose::central, 3, 2), key);
  EXPECT_NE(keys.key(NoisePurpose::central, 0, std::uint64_t{1} << 32), keys.key(NoisePurpose::central, 1, 0));
}

}  // namespace
}  // namespace fl
