#include "fl_core/wire/control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::HasSubstr;

constexpr std::uint64_t kMost = std::numeric_limits<std::uint64_t>::max();
constexpr std::uint64_t kMost32 = std::numeric_limits<std::uint32_t>::max();

std::string hex_of(std::size_t digits, char digit) { return std::string(digits, digit); }

/// One field of a frame: the values at the ends of its range, and some just outside or of another type.
struct FieldCase {
  const char* key;
  std::vector<json> good;
  std::vector<json> bad;
};

/// One frame type: a good frame, its fields, its reader (a frame that is read and written again).
struct FrameCase {
  FrameType type;
  Frame good;
  std::vector<FieldCase> fields;
  std::function<Frame(const Frame&)> again;
};

FieldCase number(const char* key, std::uint64_t low, std::uint64_t high) {
  FieldCase field{key, {low, high}, {-1, "1", 1.0, true, nullptr, json::array(), json::object()}};
  if (low > 0) field.bad.emplace_back(low - 1);
  if (high < kMost) field.bad.emplace_back(high + 1);
  if (high < kMost) field.bad.emplace_back(kMost);
  return field;
}
FieldCase text(const char* key, std::size_t limit) {
  return {key, {"", "für", std::string(limit, 'x')}, {std::string(limit + 1, 'x'), "a\nb", "\x1b[2J", 1, nullptr}};
}
FieldCase hex(const char* key, std::size_t digits, bool may_be_empty) {
  FieldCase field{key, {hex_of(digits, '0'), hex_of(digits, 'f')}, {hex_of(digits - 1, '0'), hex_of(digits + 1, '0'), hex_of(digits, 'F'), hex_of(digits, 'g'), 7}};
  (may_be_empty ? field.good : field.bad).emplace_back("");
  return field;
}

Hello some_hello() {
  Hello hello;
  hello.software = "other 2.0";
  hello.examples = 12;
  hello.input = "8";
  hello.classes = 4;
  hello.plan_sha256 = hex_of(64, 'a');
  return hello;
}

Welcome some_welcome() {
  Welcome welcome;
  welcome.run = hex_of(32, '1');
  welcome.client = 7;
  welcome.plan_sha256 = hex_of(64, 'b');
  return welcome;
}

BlobReference some_blob() {
  BlobReference blob;
  for (std::size_t i = 0; i < blob.sha256.size(); ++i) blob.sha256[i] = static_cast<std::byte>(8 * i);
  blob.size_bytes = 100'000;
  return blob;
}

std::vector<FrameCase> opening_cases() {
  return {
      {FrameType::hello, encode(some_hello()),
       {number("protocol", 0, kMost32), text("software", 256), number("examples", 0, 1ULL << 40U), text("input", 256), number("classes", 0, kMost32),
        number("threads", 0, kMost32), hex("plan", 64, true), number("ready", 0, 1)},
       [](const Frame& frame) { return encode(parse_hello(frame)); }},
      {FrameType::welcome, encode(some_welcome()),
       {number("protocol", 0, kMost32), hex("run", 32, false), number("client", 0, kMost), number("heartbeat_s", 1, 3600), hex("plan", 64, false)},
       [](const Frame& frame) { return encode(parse_welcome(frame)); }},
      {FrameType::refused, encode(Refused{Refusal::busy, "full", 5}),
       {number("code", 0, 6), text("reason", 256), number("retry_s", 0, 604'800)},
       [](const Frame& frame) { return encode(parse_refused(frame)); }},
      {FrameType::goodbye, encode(Goodbye{"done", 0, true}),
       {text("reason", 256), number("retry_s", 0, 604'800), number("finished", 0, 1)},
       [](const Frame& frame) { return encode(parse_goodbye(frame)); }},
  };
}

std::vector<FrameCase> exchange_cases() {
  return {
      {FrameType::heartbeat, encode(Heartbeat{true, 3}, 9), {number("ready", 0, 1), number("training_round", 0, kMost32)},
       [](const Frame& frame) { return encode(parse_heartbeat(frame), frame.head.request); }},
      {FrameType::heartbeat_reply, encode_heartbeat_reply(9), {},
       [](const Frame& frame) {
         parse_heartbeat_reply(frame);
         return encode_heartbeat_reply(frame.head.request);
       }},
      {FrameType::fetch, encode(Fetch{some_blob(), 65'536}, 5),
       {hex("sha256", 64, false), number("size", 65'537, (1ULL << 63U) - 1), number("offset", 0, 99'999)},
       [](const Frame& frame) { return encode(parse_fetch(frame), frame.head.request); }},
      {FrameType::chunk, encode_chunk(5, 100, SharedBuffer(Bytes(20))), {number("offset", 0, (1ULL << 63U) - 2)},
       [](const Frame& frame) { return encode_chunk(frame.head.request, parse_chunk(frame.head, frame.header.span()), frame.body); }},
      {FrameType::grant, encode_grant(42, 1000), {number("offset", 0, (1ULL << 63U) - 1)},
       [](const Frame& frame) { return encode_grant(frame.head.request, parse_grant(frame)); }},
      {FrameType::receipt, encode(Receipt{Outcome::late}, 42, 3), {number("outcome", 0, kOutcomes - 1)},
       [](const Frame& frame) { return encode(parse_receipt(frame), frame.head.request, frame.head.round); }},
  };
}

std::vector<FrameCase> all_cases() {
  std::vector<FrameCase> all = opening_cases();
  for (FrameCase& one : exchange_cases()) all.push_back(std::move(one));
  return all;
}

json header_of(const Frame& frame) { return json::from_cbor(frame.header.span()); }

Frame with_header(const Frame& frame, const json& header) {
  const std::vector<std::uint8_t> cbor = json::to_cbor(header);
  return Frame(frame.head, SharedBuffer::copy_of(std::as_bytes(std::span(cbor))), frame.body);
}

std::string error_for(const FrameCase& one, const Frame& frame) {
  return error_of([&] { one.again(frame); });
}

std::string named(const FrameCase& one) { return frame_type_name(static_cast<std::uint8_t>(one.type)); }

/// Whether two frames are the same on the wire.
bool same(const Frame& a, const Frame& b) {
  return encode_frame_header(a.head) == encode_frame_header(b.head) && std::ranges::equal(a.header.span(), b.header.span()) &&
         std::ranges::equal(a.body.span(), b.body.span());
}

TEST(ControlFrame, ComesBackAsItWas) {
  for (const FrameCase& one : all_cases()) {
    EXPECT_EQ(one.good.head.type, one.type);
    EXPECT_EQ(error_of([&] { parse_frame_header(encode_frame_header(one.good.head)); }), "") << named(one);
    ASSERT_EQ(error_for(one, one.good), "") << named(one);
    EXPECT_TRUE(same(one.again(one.good), one.good)) << named(one);
  }
}

TEST(ControlFrame, TakesEveryFieldUpToItsBounds) {
  for (const FrameCase& one : all_cases()) {
    for (const FieldCase& field : one.fields) {
      for (const json& value : field.good) {
        json header = header_of(one.good);
        header[field.key] = value;
        const Frame frame = with_header(one.good, header);
        ASSERT_EQ(error_for(one, frame), "") << named(one) << '.' << field.key << " = " << value;
        EXPECT_TRUE(same(one.again(frame), frame)) << named(one) << '.' << field.key << " = " << value;
      }
    }
  }
}

TEST(ControlFrame, RefusesEveryFieldOutsideItsBoundsOrOfAnotherType) {
  for (const FrameCase& one : all_cases()) {
    for (const FieldCase& field : one.fields) {
      for (const json& value : field.bad) {
        json header = header_of(one.good);
        header[field.key] = value;
        EXPECT_THAT(error_for(one, with_header(one.good, header)), HasSubstr("malformed ")) << named(one) << '.' << field.key << " = " << value;
      }
    }
  }
}

TEST(ControlFrame, HasExactlyItsKeys) {
  for (const FrameCase& one : all_cases()) {
    const json good = header_of(one.good);
    EXPECT_EQ(good.size(), one.fields.size()) << named(one) << ": a field is not tested";
    for (const auto& [key, value] : good.items()) {
      json header = good;
      header.erase(key);
      EXPECT_THAT(error_for(one, with_header(one.good, header)), HasSubstr("no '" + key + "'")) << named(one);
    }
    json header = good;
    header["extra"] = 1;
    EXPECT_THAT(error_for(one, with_header(one.good, header)), HasSubstr("nobody expects")) << named(one);
    EXPECT_THAT(error_for(one, Frame(one.good.head, SharedBuffer(), one.good.body)), HasSubstr("ends too early")) << named(one);
  }
}

TEST(ControlFrame, IsReadOnlyFromItsOwnType) {
  const std::vector<FrameCase> all = all_cases();
  for (const FrameCase& reader : all) {
    for (const FrameCase& other : all) {
      if (reader.type == other.type) continue;
      EXPECT_THAT(error_for(reader, other.good), HasSubstr("got " + named(other))) << named(reader);
    }
  }
}

TEST(ControlFrame, HasABodyARoundOrARequestOnlyWhereTheFormatSays) {
  for (const FrameCase& one : all_cases()) {
    const bool has_body = one.type == FrameType::welcome || one.type == FrameType::chunk;
    EXPECT_EQ(error_for(one, Frame(one.good.head, one.good.header, SharedBuffer(Bytes(5)))).empty(), has_body) << named(one);
    Frame frame = one.good;
    frame.head.round = 4;
    EXPECT_EQ(error_for(one, frame).empty(), one.type == FrameType::receipt) << named(one);
    frame = one.good;
    frame.head.request = 4;
    const bool alone = one.type == FrameType::hello || one.type == FrameType::welcome || one.type == FrameType::refused || one.type == FrameType::goodbye;
    EXPECT_EQ(error_for(one, frame).empty(), !alone) << named(one);
  }
}

TEST(ControlFrame, ThatIsCutOrChangedAnywhereIsRefusedOrReadAsWhatItSays) {
  for (const FrameCase& one : all_cases()) {
    const auto good = one.good.header.span();
    for (std::size_t at = 0; at < good.size(); ++at) {
      EXPECT_NE(error_for(one, Frame(one.good.head, SharedBuffer::copy_of(good.first(at)), one.good.body)), "") << named(one);
      for (unsigned bit = 0; bit < 8; ++bit) {
        std::vector<std::byte> changed(good.begin(), good.end());
        changed[at] ^= static_cast<std::byte>(1U << bit);
        const Frame frame(one.good.head, SharedBuffer::copy_of(changed), one.good.body);
        try {
          EXPECT_TRUE(same(one.again(frame), frame)) << named(one) << ": byte " << at << ", bit " << bit;
        } catch (const ProtocolError&) {
        }
      }
    }
  }
}

TEST(Hello, SaysWhatWasSet) {
  Hello hello = some_hello();
  hello.threads = 3;
  hello.ready = false;
  const Hello got = parse_hello(encode(hello));
  EXPECT_EQ(got.protocol, 1U);
  EXPECT_EQ(got.software, "other 2.0");
  EXPECT_EQ(got.examples, 12U);
  EXPECT_EQ(got.input, "8");
  EXPECT_EQ(got.classes, 4U);
  EXPECT_EQ(got.threads, 3U);
  EXPECT_EQ(got.plan_sha256, hello.plan_sha256);
  EXPECT_FALSE(got.ready);
}

TEST(Hello, CleansTheNameOfTheSoftware) {
  Hello hello = some_hello();
  hello.software = "evil\n" + std::string(300, 'x');
  EXPECT_EQ(parse_hello(encode(hello)).software, "evil " + std::string(251, 'x'));
}

TEST(Welcome, CarriesThePlanAsItsBody) {
  Welcome welcome = some_welcome();
  const char plan[] = {'{', '}'};
  welcome.plan = SharedBuffer::copy_of(std::as_bytes(std::span(plan)));
  const Welcome got = parse_welcome(encode(welcome));
  EXPECT_EQ(got.run, welcome.run);
  EXPECT_EQ(got.client, 7U);
  EXPECT_EQ(got.heartbeat_s, 15U);
  EXPECT_EQ(got.plan.span().data(), welcome.plan.span().data());
}

TEST(Refused, CleansItsReason) {
  const Refused got = parse_refused(encode(Refused{Refusal::flood, "\x1b[2J" + std::string(300, 'x'), 9}));
  EXPECT_EQ(got.code, Refusal::flood);
  EXPECT_EQ(got.reason, " [2J" + std::string(252, 'x'));
  EXPECT_EQ(got.retry_s, 9U);
}

TEST(Fetch, AsksForARestThatIsNotEmpty) {
  const Fetch got = parse_fetch(encode(Fetch{some_blob(), 99'999}, 5));
  EXPECT_EQ(got.blob, some_blob());
  EXPECT_EQ(got.offset, 99'999U);
  EXPECT_THAT(error_of([] { parse_fetch(encode(Fetch{some_blob(), 100'000}, 5)); }), HasSubstr("'offset' must be an integer from 0 to 99999"));
  BlobReference empty = some_blob();
  empty.size_bytes = 0;
  EXPECT_THAT(error_of([&] { parse_fetch(encode(Fetch{empty, 0}, 5)); }), HasSubstr("'size'"));
}

TEST(Chunk, SharesItsPieceAndIsNeverEmpty) {
  const SharedBuffer piece(Bytes(1U << 20U));
  const Frame frame = encode_chunk(5, 77, piece);
  EXPECT_EQ(frame.body.span().data(), piece.span().data());
  EXPECT_EQ(parse_chunk(frame.head, frame.header.span()), 77U);
  const Frame empty = encode_chunk(5, 77, SharedBuffer());
  EXPECT_THAT(error_of([&] { parse_chunk(empty.head, empty.header.span()); }), HasSubstr("it is empty"));
}

TEST(Receipt, NamesEveryOutcome) {
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    const Frame frame = encode(Receipt{outcome}, 42, 3);
    EXPECT_EQ(parse_receipt(frame).outcome, outcome);
    EXPECT_EQ(frame.head.round, 3U);
    EXPECT_EQ(frame.head.request, 42U);
  }
}

TEST(ControlFrame, ComesBackForRandomValues) {
  Rng rng(14, Purpose::synthetic_data);
  const auto u32 = [&] { return static_cast<std::uint32_t>(rng.next_u64() >> (32 + rng.below(32))); };
  const auto hex_digits = [&](std::size_t count) {
    std::string digits(count, '0');
    for (char& c : digits) c = "0123456789abcdef"[rng.below(16)];
    return digits;
  };
  const auto words = [&] { return std::string(rng.below(257), static_cast<char>('!' + rng.below(90))); };
  for (int i = 0; i < 3'000; ++i) {
    const Hello hello{u32(), words(), rng.below((1ULL << 40U) + 1), words(), u32(), u32(), rng.below(2) == 0 ? "" : hex_digits(64), rng.below(2) == 0};
    ASSERT_TRUE(same(encode(parse_hello(encode(hello))), encode(hello)));
    const Welcome welcome{u32(), hex_digits(32), rng.next_u64(), 1 + static_cast<std::uint32_t>(rng.below(3600)), hex_digits(64), SharedBuffer(Bytes(rng.below(50)))};
    ASSERT_TRUE(same(encode(parse_welcome(encode(welcome))), encode(welcome)));
    BlobReference blob;
    for (std::byte& byte : blob.sha256) byte = static_cast<std::byte>(rng.below(256));
    blob.size_bytes = 1 + rng.below((1ULL << 63U) - 1);
    const Fetch fetch{blob, rng.below(blob.size_bytes)};
    const std::uint64_t request = rng.next_u64();
    const Fetch got = parse_fetch(encode(fetch, request));
    ASSERT_EQ(got.blob, blob);
    ASSERT_EQ(got.offset, fetch.offset);
    ASSERT_EQ(encode(fetch, request).head.request, request);
  }
}

}  // namespace
}  // namespace fl
