#include "fl_core/base/hex.h"

#include <gtest/gtest.h>

namespace fl {
namespace {

TEST(Hex, GoesThereAndBack) {
  std::vector<std::byte> bytes;
  for (unsigned i = 0; i < 256; ++i) bytes.push_back(static_cast<std::byte>(i));
  const std::string text = to_hex(bytes);
  EXPECT_EQ(text.substr(0, 8), "00010203");
  EXPECT_EQ(text.substr(510), "ff");
  EXPECT_EQ(from_hex(text), bytes);
  EXPECT_EQ(from_hex(""), std::vector<std::byte>());
}

TEST(Hex, TakesNothingElse) {
  for (const char* text : {"0", "0G", "AB", " 0", "0x", "-1", "012"}) EXPECT_FALSE(from_hex(text)) << text;
  EXPECT_TRUE(is_hex("09af", 4));
  EXPECT_FALSE(is_hex("09af", 3));
  EXPECT_FALSE(is_hex("09aF", 4));
}

}  // namespace
}  // namespace fl
