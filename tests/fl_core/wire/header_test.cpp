#include "fl_core/wire/header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::HasSubstr;

using Cbor = std::vector<std::uint8_t>;

std::span<const std::byte> bytes_of(const Cbor& cbor) { return std::as_bytes(std::span(cbor)); }

/// The error of reading `cbor` and asking for nothing.
std::string error_for(const Cbor& cbor) {
  return error_of([&] { HeaderReader(bytes_of(cbor), "thing").finish(); });
}

/// Reads key "a" of a header that holds nothing else.
template <class Integer>
Integer integer_in(const Cbor& cbor) {
  HeaderReader header(bytes_of(cbor), "thing");
  Integer value = 0;
  header.integer("a", value);
  header.finish();
  return value;
}

TEST(HeaderReader, ReadsIntegersOfEverySize) {
  // RFC 8949, appendix A, each as the value of "a": a1 61 61.
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x00}), 0);
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x17}), 23);
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x18, 0x18}), 24);
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x19, 0x03, 0xe8}), 1000);
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x1a, 0x00, 0x0f, 0x42, 0x40}), 1000000);
  EXPECT_EQ(integer_in<std::int64_t>({0xa1, 0x61, 'a', 0x1b, 0x00, 0x00, 0x00, 0xe8, 0xd4, 0xa5, 0x10, 0x00}), 1000000000000);
  EXPECT_EQ(integer_in<std::uint64_t>({0xa1, 0x61, 'a', 0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), 18446744073709551615ULL);
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x20}), -1);
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x38, 0x63}), -100);
  EXPECT_EQ(integer_in<std::int64_t>({0xa1, 0x61, 'a', 0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), INT64_MIN);
}

TEST(HeaderReader, RefusesIntegersThatDoNotFit) {
  const Cbor most = {0xa1, 0x61, 'a', 0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff};
  EXPECT_THAT(error_of([&] { integer_in<std::int64_t>(most); }), HasSubstr("'a' must be an integer from"));
  EXPECT_THAT(error_of([&] { integer_in<std::uint32_t>(most); }), HasSubstr("from 0 to 4294967295"));
  EXPECT_THAT(error_of([&] { integer_in<std::uint64_t>({0xa1, 0x61, 'a', 0x20}); }), HasSubstr("'a' must be an integer"));
  EXPECT_THAT(error_of([&] { integer_in<std::uint8_t>({0xa1, 0x61, 'a', 0x19, 0x01, 0x00}); }), HasSubstr("from 0 to 255"));
  EXPECT_THAT(error_of([&] { integer_in<int>({0xa1, 0x61, 'a', 0x61, '1'}); }), HasSubstr("'a' must be an integer"));
  // -1 - 2^63 fits no integer of ours.
  EXPECT_THAT(error_for({0xa1, 0x61, 'a', 0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0}), HasSubstr("neither an integer nor text"));
}

TEST(HeaderReader, RefusesEveryLongerFormOfAnInteger) {
  // The lowest value that needs 1, 2, 4, 8 bytes is accepted; the value below it is not.
  EXPECT_THAT(error_for({0xa1, 0x61, 'a', 0x18, 0x17}), HasSubstr("shortest form"));
  EXPECT_THAT(error_for({0xa1, 0x61, 'a', 0x19, 0x00, 0xff}), HasSubstr("shortest form"));
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x19, 0x01, 0x00}), 256);
  EXPECT_THAT(error_for({0xa1, 0x61, 'a', 0x1a, 0x00, 0x00, 0xff, 0xff}), HasSubstr("shortest form"));
  EXPECT_EQ(integer_in<int>({0xa1, 0x61, 'a', 0x1a, 0x00, 0x01, 0x00, 0x00}), 65536);
  EXPECT_THAT(error_for({0xa1, 0x61, 'a', 0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}), HasSubstr("shortest form"));
  EXPECT_EQ(integer_in<std::int64_t>({0xa1, 0x61, 'a', 0x1b, 0, 0, 0, 1, 0, 0, 0, 0}), 4294967296);
  EXPECT_THAT(error_for({0xb8, 0x01, 0x61, 'a', 0x00}), HasSubstr("shortest form"));        // the map's count
  EXPECT_THAT(error_for({0xa1, 0x78, 0x01, 'a', 0x00}), HasSubstr("shortest form"));        // a key's length
  EXPECT_THAT(error_for({0xa1, 0x61, 'a', 0x78, 0x01, 'x'}), HasSubstr("shortest form"));   // a text's length
}

TEST(HeaderReader, RefusesEveryOtherInitialByte) {
  // 0x00–0x1b, 0x20–0x3b (integers) and 0x60–0x7b (text) are the only values; 28–31 are reserved or indefinite.
  for (unsigned initial = 0; initial < 256; ++initial) {
    const unsigned major = initial >> 5U;
    const bool value = (major == 0 || major == 1 || major == 3) && (initial & 31U) < 24;
    Cbor cbor = {0xa1, 0x61, 'a', static_cast<std::uint8_t>(initial)};
    if (major == 3 && value) cbor.insert(cbor.end(), initial & 31U, 'x');
    const std::string error = error_for(cbor);
    EXPECT_EQ(error == "malformed thing: a header key that nobody expects", value) << initial << ": " << error;
    EXPECT_THAT(error, HasSubstr("malformed thing"));
  }
  for (unsigned initial = 0; initial < 256; ++initial) {
    if (initial == 0xa0) continue;
    EXPECT_NE(error_for({static_cast<std::uint8_t>(initial)}), "") << initial;
  }
  EXPECT_EQ(error_for({0xa0}), "");
}

TEST(HeaderReader, RefusesKeysThatAreNoText) {
  EXPECT_THAT(error_for({0xa1, 0x01, 0x01}), HasSubstr("a header key is not text"));
  EXPECT_THAT(error_for({0xa1, 0x41, 'a', 0x01}), HasSubstr("a header key is not text"));
}

TEST(HeaderReader, RefusesEveryCutAndEveryAddedByte) {
  const Cbor good = {0xa2, 0x61, 'a', 0x19, 0x03, 0xe8, 0x61, 'b', 0x63, 'x', 'y', 'z'};
  EXPECT_THAT(error_for(good), HasSubstr("nobody expects"));
  for (std::size_t size = 0; size < good.size(); ++size) {
    EXPECT_THAT(error_for(Cbor(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size))), HasSubstr("ends too early")) << size;
  }
  Cbor longer = good;
  longer.push_back(0xa0);
  EXPECT_THAT(error_for(longer), HasSubstr("bytes after the header"));
}

TEST(HeaderReader, AsksForEveryKeyOnce) {
  const Cbor good = {0xa2, 0x61, 'a', 0x01, 0x61, 'b', 0x61, 'x'};
  HeaderReader header(bytes_of(good), "thing");
  EXPECT_THAT(error_of([&] { header.text("c", 9); }), HasSubstr("malformed thing: no 'c' in the header"));
  EXPECT_EQ(header.text("b", 1), "x");
  EXPECT_THAT(error_of([&] { header.text("b", 1); }), HasSubstr("no 'b'"));
  EXPECT_THAT(error_of([&] { header.finish(); }), HasSubstr("nobody expects"));
  EXPECT_TRUE(header.flag("a"));
  EXPECT_EQ(error_of([&] { header.finish(); }), "");
}

TEST(HeaderReader, AcceptsKeysInAnyOrderButOnce) {
  const Cbor turned = {0xa2, 0x61, 'b', 0x61, 'x', 0x61, 'a', 0x01};
  HeaderReader header(bytes_of(turned), "thing");
  EXPECT_TRUE(header.flag("a"));
  EXPECT_EQ(header.text("b", 1), "x");
  EXPECT_THAT(error_for({0xa2, 0x61, 'a', 0x01, 0x61, 'a', 0x01}), HasSubstr("twice"));
}

TEST(HeaderReader, FlagsAreZeroOrOne) {
  const auto flag = [](std::uint8_t value) {
    const Cbor cbor = {0xa1, 0x61, 'a', value};
    return HeaderReader(bytes_of(cbor), "thing").flag("a");
  };
  EXPECT_FALSE(flag(0));
  EXPECT_TRUE(flag(1));
  EXPECT_THROW(flag(2), ProtocolError);
  EXPECT_THROW(flag(0x20), ProtocolError);  // -1
  EXPECT_THROW(flag(0xf5), ProtocolError);  // CBOR's true
  EXPECT_THROW(flag(0x60), ProtocolError);  // ""
}

TEST(HeaderReader, LimitsTextByBytes) {
  const auto text = [](const std::string& value, std::size_t limit) {
    const SharedBuffer cbor = encode_header({{"a", value}});
    return HeaderReader(cbor.span(), "thing").text("a", limit);
  };
  EXPECT_EQ(text("", 0), "");
  EXPECT_EQ(text("für", 4), "für");
  EXPECT_THAT(error_of([&] { text("für", 3); }), HasSubstr("'a' must be at most 3 bytes of UTF-8"));
  const Cbor number = {0xa1, 0x61, 'a', 0x05};
  EXPECT_THAT(error_of([&] { HeaderReader(bytes_of(number), "thing").text("a", 9); }), HasSubstr("'a' must be at most 9"));
}

TEST(HeaderReader, HexIsLowerCaseAndComplete) {
  const auto hex = [](const std::string& value, bool may_be_empty) {
    const SharedBuffer cbor = encode_header({{"a", value}});
    return error_of([&] { HeaderReader(cbor.span(), "thing").hex("a", 4, may_be_empty); });
  };
  EXPECT_EQ(hex("09af", false), "");
  EXPECT_EQ(hex("", true), "");
  for (const char* wrong : {"", "09a", "09AF", "09ag", "0x9a", " 9af"}) EXPECT_THAT(hex(wrong, false), HasSubstr("4 lower-case hex")) << wrong;
  EXPECT_THAT(hex("09afa", true), HasSubstr("at most 4 bytes"));
  EXPECT_THAT(hex("09a", true), HasSubstr("4 lower-case hex"));
}

TEST(HeaderReader, TakesAHeaderOfExactlyTheLimit) {
  // a1 61 61 79 ff f8, then 65528 bytes: 1 + 2 + 3 + 65530 would be one too many.
  const auto header_with = [](std::size_t text_size) {
    Cbor cbor = {0xa1, 0x61, 'a', 0x79, static_cast<std::uint8_t>(text_size >> 8U), static_cast<std::uint8_t>(text_size & 255U)};
    cbor.insert(cbor.end(), text_size, 'x');
    return cbor;
  };
  const Cbor largest = header_with(65530);
  ASSERT_EQ(largest.size(), limits::kHeaderBytes);
  EXPECT_EQ(HeaderReader(bytes_of(largest), "thing").text("a", limits::kHeaderBytes).size(), 65530U);
  EXPECT_THAT(error_for(header_with(65531)), HasSubstr("header of 65537 bytes, the limit is 65536"));
}

/// Up to kHeaderKeys keys, some of them nested in others or not ASCII, with integers of every length and both signs, and texts.
json random_map(Rng& rng) {
  json map = json::object();
  for (std::uint64_t keys = rng.below(kHeaderKeys + 1); keys > 0; --keys) {
    const std::string key = (rng.below(4) == 0 ? "\xc3\xa4" : "k") + std::string(rng.below(30), 'x') + std::to_string(rng.below(100));
    const std::uint64_t number = rng.next_u64() >> rng.below(64);
    switch (rng.below(3)) {
      case 0: map[key] = number; break;
      case 1: map[key] = -1 - static_cast<std::int64_t>(number >> 1U); break;
      default: map[key] = std::string(rng.below(300), static_cast<char>('a' + rng.below(26))); break;
    }
  }
  return map;
}

Cbor by_nlohmann(const json& map) { return json::to_cbor(map); }

/// What nlohmann makes of bytes; discarded when it refuses them.
json read_by_nlohmann(const Cbor& cbor) {
  try {
    return json::from_cbor(cbor, true, false);
  } catch (const json::exception&) {  // it still throws for counts that do not fit
    return json(json::value_t::discarded);
  }
}

/// Our bytes for a map, whose fields are given in a random order.
SharedBuffer by_us(const json& map, Rng& rng) {
  std::vector<HeaderField> fields;
  for (const auto& [key, value] : map.get_ref<const json::object_t&>()) {
    if (value.is_string()) fields.emplace_back(key, value.get_ref<const std::string&>());
    else if (value.is_number_unsigned()) fields.emplace_back(key, value.get<std::uint64_t>());
    else fields.emplace_back(key, value.get<std::int64_t>());
  }
  for (std::size_t i = fields.size(); i > 1; --i) std::swap(fields[i - 1], fields[rng.below(i)]);
  return encode_fields(fields);
}

/// What our reader makes of a header of these keys; nothing when it refuses it.
std::optional<json> read_by_us(std::span<const std::byte> cbor, const json& expected) {
  json read = json::object();
  try {
    HeaderReader header(cbor, "thing");
    for (const auto& [key, value] : expected.get_ref<const json::object_t&>()) {
      if (value.is_string()) {
        read[key] = header.text(key.c_str(), limits::kHeaderBytes);
      } else if (value.is_number_unsigned()) {
        std::uint64_t number = 0;
        header.integer(key.c_str(), number);
        read[key] = number;
      } else {
        std::int64_t number = 0;
        header.integer(key.c_str(), number);
        read[key] = number;
      }
    }
    header.finish();
  } catch (const ProtocolError&) {
    return std::nullopt;
  }
  return read;
}

TEST(Header, HasTheBytesOfNlohmannAndComesBack) {
  Rng rng(12, Purpose::synthetic_data);
  for (int i = 0; i < 5'000; ++i) {
    const json map = random_map(rng);
    const SharedBuffer cbor = by_us(map, rng);
    ASSERT_TRUE(std::ranges::equal(cbor.span(), bytes_of(by_nlohmann(map)))) << map;
    ASSERT_EQ(read_by_us(cbor.span(), map), map);
  }
}

TEST(Header, IntegersChangeTheirLengthWhereNlohmannsDo) {
  for (unsigned bits = 0; bits < 64; ++bits) {
    for (const std::uint64_t near : {(1ULL << bits) - 1, 1ULL << bits, (1ULL << bits) + 1, 23ULL, 24ULL, ~0ULL}) {
      ASSERT_TRUE(std::ranges::equal(encode_header({{"a", near}}).span(), bytes_of(by_nlohmann({{"a", near}})))) << near;
      const std::int64_t negative = -1 - static_cast<std::int64_t>(near >> 1U);
      ASSERT_TRUE(std::ranges::equal(encode_header({{"a", negative}}).span(), bytes_of(by_nlohmann({{"a", negative}})))) << negative;
    }
  }
}

/// What our reader accepts of mutated headers is what nlohmann reads, and has no longer form.
TEST(Header, IsNeverReadOtherwiseThanByNlohmann) {
  Rng rng(14, Purpose::synthetic_data);
  int taken = 0;
  for (int i = 0; i < 50'000; ++i) {
    const json map = random_map(rng);
    Cbor cbor = by_nlohmann(map);
    for (std::uint64_t edits = 1 + rng.below(2); edits > 0; --edits) cbor[rng.below(cbor.size())] ^= static_cast<std::uint8_t>(1U << rng.below(8));
    const json theirs = read_by_nlohmann(cbor);
    const std::optional<json> ours = read_by_us(bytes_of(cbor), theirs.is_object() ? theirs : map);
    if (!ours) continue;
    ++taken;
    ASSERT_EQ(*ours, theirs);
    ASSERT_EQ(by_nlohmann(theirs).size(), cbor.size()) << "a longer form was accepted";
  }
  EXPECT_GT(taken, 1'000);
}

TEST(Header, AcceptsWhatItsKeysInAnyOrderSay) {
  Rng rng(15, Purpose::synthetic_data);
  for (int i = 0; i < 2'000; ++i) {
    const json map = random_map(rng);
    std::vector<std::string> keys;
    for (const auto& [key, value] : map.get_ref<const json::object_t&>()) keys.push_back(key);
    Cbor cbor = {static_cast<std::uint8_t>(0xa0 + keys.size())};
    for (std::size_t left = keys.size(); left > 0; --left) {
      std::swap(keys[left - 1], keys[rng.below(left)]);
      for (const json& part : {json(keys[left - 1]), map[keys[left - 1]]}) {
        const Cbor bytes = json::to_cbor(part);
        cbor.insert(cbor.end(), bytes.begin(), bytes.end());
      }
    }
    ASSERT_EQ(read_by_us(bytes_of(cbor), map), map);
  }
}

TEST(Header, OfTooManyKeysIsRefusedInOnePass) {
  // 16 keys are read, and the 17th is one that nobody expects.
  Cbor cbor = {0xb0};
  for (char key = 'a'; key < 'a' + 16; ++key) cbor.insert(cbor.end(), {0x61, static_cast<std::uint8_t>(key), 0x01});
  HeaderReader full(bytes_of(cbor), "thing");
  for (char key = 'a'; key < 'a' + 16; ++key) EXPECT_TRUE(full.flag(std::string(1, key).c_str()));
  EXPECT_EQ(error_of([&] { full.finish(); }), "");
  cbor[0] = 0xb1;
  cbor.insert(cbor.end(), {0x61, 'z', 0x01});
  EXPECT_EQ(error_of([&] { HeaderReader(bytes_of(cbor), "thing"); }), "malformed thing: a header key that nobody expects");
}

TEST(CleanedText, IsWhatAHeaderAccepts) {
  Rng rng(13, Purpose::synthetic_data);
  for (int i = 0; i < 5'000; ++i) {
    std::string wild(rng.below(40), ' ');
    for (char& c : wild) c = static_cast<char>(rng.below(2) == 0 ? rng.below(256) : 0xc0 + rng.below(64));
    const std::string clean = cleaned_text(wild, 30);
    ASSERT_LE(clean.size(), 30U);
    const SharedBuffer cbor = encode_header({{"a", clean}});
    ASSERT_EQ(HeaderReader(cbor.span(), "thing").text("a", 30), clean);
    ASSERT_EQ(cleaned_text(clean, 30), clean);
  }
}

}  // namespace
}  // namespace fl
