// The old interface is the only one that replaces the generator in a whole process without a configuration file.
#define OPENSSL_SUPPRESS_DEPRECATED

#include "privacy/secagg/secret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/rand.h>

#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#include "fl_core/base/error.h"
#include "privacy/secagg/key_agreement.h"
#include "privacy/secagg/signature.h"
#include "tests/privacy/secagg/support.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

const std::string kZeros(64, '0');

static_assert(!std::is_copy_constructible_v<SecretKey> && !std::is_copy_assignable_v<SecretKey>);
static_assert(!std::is_copy_constructible_v<SecretBytes> && !std::is_copy_assignable_v<SecretBytes>);

TEST(SecretKey, LeavesZerosWhereItMovedFrom) {
  SecretKey from = test::secret_of(0x1122334455667788);
  const std::string was = to_hex(from.bytes());
  SecretKey to(std::move(from));
  EXPECT_EQ(to_hex(to.bytes()), was);
  EXPECT_EQ(to_hex(from.bytes()), kZeros);
  SecretKey third = test::secret_of(5);
  third = std::move(to);
  EXPECT_EQ(to_hex(third.bytes()), was);
  EXPECT_EQ(to_hex(to.bytes()), kZeros);
  SecretKey& same = third;
  third = std::move(same);
  EXPECT_EQ(to_hex(third.bytes()), was);
}

TEST(SecretKey, LeavesZerosWhereItDied) {
  alignas(SecretKey) std::array<std::byte, sizeof(SecretKey)> room{};
  SecretKey* key = std::construct_at(reinterpret_cast<SecretKey*>(room.data()), test::secret_of(7));
  ASSERT_NE(to_hex(key->bytes()), kZeros);
  std::destroy_at(key);
  // Read through a volatile pointer: the compiler may not argue that nobody looks at a dead object.
  const volatile std::byte* bytes = room.data();
  for (std::size_t i = 0; i < room.size(); ++i) EXPECT_TRUE(bytes[i] == std::byte{0}) << i;
}

TEST(SecretKey, IsRandomEachTime) {
  const SecretKey a = SecretKey::random();
  const SecretKey b = SecretKey::random();
  EXPECT_FALSE(equal_in_constant_time(a.bytes(), b.bytes()));
  EXPECT_NE(to_hex(a.bytes()), kZeros);
  EXPECT_TRUE(equal_in_constant_time(a.bytes(), a.copy().bytes()));
}

/// OpenSSL's generator replaced by one that fails, until the end of the scope.
class BrokenGenerator {
 public:
  BrokenGenerator() { RAND_set_rand_method(&kMethod); }
  ~BrokenGenerator() { RAND_set_rand_method(RAND_OpenSSL()); }
  BrokenGenerator(const BrokenGenerator&) = delete;
  BrokenGenerator& operator=(const BrokenGenerator&) = delete;

 private:
  static int fail(unsigned char*, int) { return 0; }
  static int ready() { return 1; }
  static constexpr RAND_METHOD kMethod = {nullptr, &fail, nullptr, nullptr, &fail, &ready};
};

TEST(SecretKey, ThrowsWhenTheGeneratorFails) {
  {
    const BrokenGenerator broken;
    EXPECT_THROW(SecretKey::random(), IoError);
    EXPECT_THROW(AgreementKeys::generate(), IoError);
    EXPECT_THROW(SigningKey::generate(), IoError);
    EXPECT_THAT(test::error_of([] { SecretKey::random(); }), testing::HasSubstr("random generator failed"));
  }
  EXPECT_NO_THROW(SecretKey::random()) << "the control: the generator works again";
}

TEST(SecretBytes, MoveAndCopyOnPurpose) {
  const auto bytes = test::bytes_of("0102030405");
  SecretBytes from{std::span<const std::byte>(bytes)};
  SecretBytes copy = from.copy();
  SecretBytes to = std::move(from);
  EXPECT_EQ(from.size(), 0U);
  EXPECT_EQ(to_hex(to.bytes()), "0102030405");
  to = SecretBytes(2);
  EXPECT_EQ(to_hex(to.bytes()), "0000");
  EXPECT_EQ(to_hex(copy.bytes()), "0102030405");
}

TEST(EqualInConstantTime, ComparesSizesAndBytes) {
  const auto a = test::bytes_of("010203");
  EXPECT_TRUE(equal_in_constant_time(a, test::bytes_of("010203")));
  EXPECT_FALSE(equal_in_constant_time(a, test::bytes_of("010204")));
  EXPECT_FALSE(equal_in_constant_time(a, test::bytes_of("0102")));
  EXPECT_TRUE(equal_in_constant_time({}, {}));
}

}  // namespace
}  // namespace fl
