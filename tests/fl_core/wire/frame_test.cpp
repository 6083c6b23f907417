#include "fl_core/wire/frame.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "fl_core/base/rng.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using testing::HasSubstr;

using HeadBytes = std::array<std::byte, kFrameHeaderBytes>;

FrameHeader head_of(FrameType type, std::uint32_t header_bytes = 0, std::uint32_t body_bytes = 0) {
  FrameHeader head;
  head.type = type;
  head.header_bytes = header_bytes;
  head.body_bytes = body_bytes;
  return head;
}

std::string error_for(const HeadBytes& bytes) {
  return error_of([&] { parse_frame_header(bytes); });
}
std::string error_for(const FrameHeader& head) { return error_for(encode_frame_header(head)); }

bool operator==(const FrameHeader& a, const FrameHeader& b) {
  return a.type == b.type && a.flags == b.flags && a.round == b.round && a.header_bytes == b.header_bytes &&
         a.body_bytes == b.body_bytes && a.request == b.request;
}

constexpr std::uint8_t kTypes[] = {1, 2, 3, 4, 5, 6, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73};

/// The longest body of a frame of this type without a reference, by FORMAT.md's table of frame types.
std::uint32_t longest_body(std::uint8_t type) {
  switch (type) {
    case 1: case 2: case 4: case 5: case 6: return 65'536;
    case 65: case 70: return 1'048'576;
    default: return 0;
  }
}

TEST(FrameHeader, PutsEveryFieldWhereTheFormatSays) {
  FrameHeader head = head_of(FrameType::update, 0x0201, 40);
  head.flags = kFlagBlob;
  head.round = 0x06050403;
  head.request = 0x0e0d0c0b0a090807ULL;
  const std::uint8_t expected[32] = {'T', 'R', 'B', 'T', 1,    2, 1, 0, 3, 4, 5, 6, 1, 2,    0,    0,
                                     40,  0,   0,   0,   0,    0, 0, 0, 7, 8, 9, 10, 11, 12, 13, 14};
  const HeadBytes bytes = encode_frame_header(head);
  EXPECT_TRUE(std::ranges::equal(bytes, std::as_bytes(std::span(expected))));
}

TEST(FrameHeader, ComesBackForRandomFields) {
  Rng rng(11, Purpose::synthetic_data);
  for (int i = 0; i < 20'000; ++i) {
    FrameHeader head;
    const std::uint8_t type = kTypes[rng.below(std::size(kTypes))];
    head.type = static_cast<FrameType>(type);
    head.round = static_cast<std::uint32_t>(rng.below(1ULL << 32U));
    head.header_bytes = static_cast<std::uint32_t>(rng.below(limits::kHeaderBytes + 1));
    head.body_bytes = static_cast<std::uint32_t>(rng.below(longest_body(type) + 1));
    head.request = rng.below(1ULL << 63U) << 1U | rng.below(2);
    if (longest_body(type) == 65'536 && rng.below(2) == 0) {
      head.flags = kFlagBlob;
      head.body_bytes = kBlobReferenceBytes;
    }
    const HeadBytes bytes = encode_frame_header(head);
    const FrameHeader got = parse_frame_header(bytes);
    ASSERT_TRUE(got == head) << "at " << i;
    ASSERT_EQ(encode_frame_header(got), bytes);
  }
}

TEST(FrameHeader, AnyChangedByteIsRefusedOrIsAnotherHeader) {
  // No byte is ignored: whatever a flipped bit gives is refused, or is read as another header than before.
  FrameHeader head = head_of(FrameType::train, 40, 1000);
  head.round = 7;
  head.request = 9;
  const HeadBytes good = encode_frame_header(head);
  for (std::size_t at = 0; at < good.size(); ++at) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      HeadBytes bytes = good;
      bytes[at] ^= static_cast<std::byte>(1U << bit);
      const std::string error = error_for(bytes);
      const bool fixed = at < 5 || at == 6 || at == 7 || (at >= 20 && at < 24);  // magic, version, flags, reserved
      if (fixed) {
        EXPECT_THAT(error, HasSubstr("malformed frame")) << "byte " << at << ", bit " << bit;
      } else if (error.empty()) {
        EXPECT_FALSE(parse_frame_header(bytes) == head) << "byte " << at << ", bit " << bit;
        EXPECT_EQ(encode_frame_header(parse_frame_header(bytes)), bytes);
      }
    }
  }
}

TEST(FrameHeader, NamesWhatIsWrong) {
  HeadBytes bytes = encode_frame_header(head_of(FrameType::hello));
  EXPECT_EQ(error_for(bytes), "");
  bytes[0] = std::byte{'G'};
  EXPECT_THAT(error_for(bytes), HasSubstr("TRBT"));
  bytes = encode_frame_header(head_of(FrameType::hello));
  bytes[4] = std::byte{2};
  EXPECT_THAT(error_for(bytes), HasSubstr("version 2, this program speaks version 1"));
  bytes = encode_frame_header(head_of(FrameType::hello));
  bytes[23] = std::byte{1};
  EXPECT_THAT(error_for(bytes), HasSubstr("reserved"));
}

TEST(FrameHeader, KnowsExactlyItsTypes) {
  for (unsigned type = 0; type < 256; ++type) {
    HeadBytes bytes = encode_frame_header(head_of(FrameType::hello));
    bytes[5] = static_cast<std::byte>(type);
    const bool known = std::find(std::begin(kTypes), std::end(kTypes), type) != std::end(kTypes);
    EXPECT_EQ(error_for(bytes), known ? "" : "malformed frame: frame type " + std::to_string(type) + " is unknown");
    EXPECT_EQ(frame_type_name(static_cast<std::uint8_t>(type)).starts_with("frame type"), !known);
  }
}

TEST(FrameHeader, LimitsHeaderAndBodyBeforeAnybodyAllocates) {
  constexpr std::uint32_t kMost = std::numeric_limits<std::uint32_t>::max();
  for (const std::uint8_t number : kTypes) {
    const auto type = static_cast<FrameType>(number);
    EXPECT_EQ(error_for(head_of(type, 65'536)), "") << frame_type_name(number);
    for (const std::uint32_t size : {65'537U, kMost}) {
      EXPECT_THAT(error_for(head_of(type, size)), HasSubstr("the limit is 65536")) << frame_type_name(number);
    }
    const std::uint32_t limit = longest_body(number);
    EXPECT_EQ(error_for(head_of(type, 1, limit)), "") << frame_type_name(number);
    for (const std::uint32_t size : {limit + 1, kMost}) {
      EXPECT_THAT(error_for(head_of(type, 1, size)), HasSubstr("the limit is " + std::to_string(limit))) << frame_type_name(number);
    }
  }
}

TEST(FrameHeader, OnlyTasksAndAnswersReferToBlobs) {
  for (const std::uint8_t number : kTypes) {
    FrameHeader head = head_of(static_cast<FrameType>(number), 1, kBlobReferenceBytes);
    head.flags = kFlagBlob;
    const bool may = number == 1 || number == 2 || number == 4 || number == 5 || number == 6;
    EXPECT_EQ(error_for(head).empty(), may) << frame_type_name(number);
    for (const std::uint16_t flags : {std::uint16_t{2}, std::uint16_t{3}, std::uint16_t{0x8000}}) {
      head.flags = flags;
      EXPECT_THAT(error_for(head), HasSubstr("flags " + std::to_string(flags))) << frame_type_name(number);
    }
  }
  FrameHeader head = head_of(FrameType::update, 1);
  head.flags = kFlagBlob;
  for (const std::uint32_t size : {0U, 39U, 41U, 65'536U}) {
    head.body_bytes = size;
    EXPECT_THAT(error_for(head), HasSubstr("blob reference of another length")) << size;
  }
}

TEST(Frame, FillsInItsSizes) {
  const Frame frame(head_of(FrameType::chunk, 77, 88), SharedBuffer(Bytes(3)), SharedBuffer(Bytes(1U << 20U)));
  EXPECT_EQ(frame.head.header_bytes, 3U);
  EXPECT_EQ(frame.head.body_bytes, 1U << 20U);
  EXPECT_THAT(error_of([] { Frame(head_of(FrameType::chunk), SharedBuffer(Bytes(65'537)), SharedBuffer()); }), HasSubstr("internal check"));
  EXPECT_THAT(error_of([] { Frame(head_of(FrameType::chunk), SharedBuffer(), SharedBuffer(Bytes((1U << 20U) + 1))); }),
              HasSubstr("internal check"));
}

TEST(BlobReference, NamesABlobByHashAndLength) {
  const char text[] = {'a', 'b', 'c'};
  const BlobReference reference = reference_to(std::as_bytes(std::span(text)));
  // FIPS 180-2, appendix B.1: SHA-256 of "abc".
  EXPECT_EQ(reference.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const SharedBuffer bytes = encode_blob_reference(reference);
  ASSERT_EQ(bytes.size(), 40U);
  EXPECT_EQ(bytes.span()[0], std::byte{0xba});
  EXPECT_EQ(bytes.span()[32], std::byte{3});
  EXPECT_TRUE(std::ranges::all_of(bytes.span().subspan(33), [](std::byte byte) { return byte == std::byte{0}; }));
  EXPECT_EQ(parse_blob_reference(bytes.span()), reference);
}

TEST(BlobReference, IsRefusedForLengthsThatAreNone) {
  BlobReference reference;
  const auto error = [&](std::uint64_t size) {
    reference.size_bytes = size;
    return error_of([&] { parse_blob_reference(encode_blob_reference(reference).span()); });
  };
  EXPECT_EQ(error(1), "");
  EXPECT_EQ(error((1ULL << 63U) - 1), "");
  EXPECT_THAT(error(0), HasSubstr("a blob of 0 bytes"));
  EXPECT_THAT(error(1ULL << 63U), HasSubstr("malformed blob reference"));
  EXPECT_THAT(error(std::numeric_limits<std::uint64_t>::max()), HasSubstr("malformed blob reference"));
  for (const std::size_t size : {0U, 39U, 41U}) {
    EXPECT_THROW(parse_blob_reference(Bytes(size).span()), ProtocolError) << size;
  }
}

TEST(MessageFrame, TravelsWholeUpToTheLimitAndAsAReferenceAbove) {
  const SharedBuffer header = SharedBuffer(Bytes(3));
  for (const std::size_t size : {0U, 1U, 65'536U}) {
    const SharedBuffer body(Bytes{size});
    const Frame frame = frame_of(Message(MessageType::update, 5, header, body), 9);
    EXPECT_EQ(frame.head.flags, 0U);
    EXPECT_EQ(frame.body.span().data(), body.span().data()) << "shared, not copied";
    EXPECT_EQ(error_for(frame.head), "") << size;
  }
  const SharedBuffer body(Bytes(65'537));
  const Message message(MessageType::update, 5, header, body);
  const Frame frame = frame_of(message, 9);
  EXPECT_EQ(frame.head.flags, kFlagBlob);
  EXPECT_EQ(parse_blob_reference(frame.body.span()), reference_to(body.span()));
  EXPECT_EQ(frame.head.round, 5U);
  EXPECT_EQ(frame.head.request, 9U);
  EXPECT_EQ(error_for(frame.head), "");
  const Message got = message_of(frame, body);
  EXPECT_EQ(got.type(), MessageType::update);
  EXPECT_EQ(got.round(), 5U);
  EXPECT_EQ(got.header().span().data(), header.span().data());
  EXPECT_EQ(got.body().span().data(), body.span().data());
}

}  // namespace
}  // namespace fl
