// The bytes of the messages: one encoding each, strict decoders, and seeded mutations against all of them and against
// both ends.
#include "privacy/secagg/messages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/base/hex.h"
#include "tests/privacy/secagg/secagg_rig.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::HasSubstr;

constexpr std::uint32_t kClients = 6;

template <std::size_t kSize>
std::array<std::byte, kSize> filled(std::uint64_t index) {
  std::array<std::byte, kSize> out;
  for (std::size_t i = 0; i < kSize; ++i) out[i] = fixed_key(20 + i / 32, index)[i % 32];
  return out;
}

SecAggAdvert some_advert(ClientId client) {
  return {client, filled<32>(client), filled<32>(client + 1), filled<64>(client)};
}
SealedShares some_box(ClientId client) { return {client, filled<kSealedSharesBytes>(client)}; }
SecAggSet some_set() { return {true, false, true, true, false, true}; }

/// Every message there is, with decoding and encoding again.
struct Case {
  const char* name;
  SecAggBytes bytes;
  std::function<SecAggBytes(SecAggView)> round_trip;
};

std::vector<Case> all_messages() {
  const SecAggRound round = some_round();
  SecAggRoster roster;
  for (ClientId id = 3; id < 9; ++id) roster.entries.push_back({id, filled<32>(id)});
  roster.adverts = {some_advert(4), some_advert(7)};
  const std::vector<std::uint64_t> values{1, 2, 0xfffff, 0, 77};
  return {
      {"advert", encode_advert(round, some_advert(7)),
       [=](SecAggView b) { return encode_advert(round, decode_advert(round, b)); }},
      {"roster", encode_roster(round, roster),
       [=](SecAggView b) { return encode_roster(round, decode_roster(round, b)); }},
      {"shares", encode_shares(round, {filled<32>(1), {some_box(2), some_box(~ClientId{0})}}),
       [=](SecAggView b) { return encode_shares(round, decode_shares(round, b)); }},
      {"inbox", encode_inbox(round, {some_set(), {some_box(0), some_box(1)}}),
       [=](SecAggView b) { return encode_inbox(round, decode_inbox(round, kClients, b)); }},
      {"input", encode_input(round, values, 20),
       [=](SecAggView b) {
         std::vector<std::uint64_t> sum(values.size());
         add_input(round, b, 20, sum);
         return encode_input(round, sum, 20);
       }},
      {"survivors", encode_survivors(round, some_set()),
       [=](SecAggView b) { return encode_survivors(round, decode_survivors(round, kClients, b)); }},
      {"confirmation", encode_confirmation(round, filled<64>(3)),
       [=](SecAggView b) { return encode_confirmation(round, decode_confirmation(round, b)); }},
      {"confirmations", encode_confirmations(round, {{4, filled<64>(4)}, {9, filled<64>(9)}}),
       [=](SecAggView b) { return encode_confirmations(round, decode_confirmations(round, b)); }},
      {"reveal",
       encode_reveal(round, {{4, ShareKind::mask_seed, filled<kSecAggShareBytes>(1)},
                             {5, ShareKind::mask_key, filled<kSecAggShareBytes>(2)}}),
       [=](SecAggView b) { return encode_reveal(round, decode_reveal(round, b)); }},
  };
}

TEST(SecAggMessages, HaveTheSameBytesWhenReadAndWrittenAgain) {
  for (const Case& each : all_messages()) EXPECT_EQ(each.round_trip(each.bytes), each.bytes) << each.name;
}

// By hand: "SA", version 1, type, round 5 and the session; then what the type holds, integers little-endian.
TEST(SecAggMessages, HaveTheBytesThatTheProtocolSays) {
  SecAggRound round;
  round.round = 5;
  round.session.fill(std::byte{0xab});
  std::string session;
  for (int i = 0; i < 32; ++i) session += "ab";
  const auto head = [&](const char* type) { return std::string("534101") + type + "0500000000000000" + session; };
  EXPECT_EQ(to_hex(encode_survivors(round, {true, false, true, true, false, true, false, false, true})),
            head("06") + "2d01");
  // 1 | 2 << 12 | 0xabc << 24: 01 20 00 bc 0a, 36 bits.
  EXPECT_EQ(to_hex(encode_input(round, std::vector<std::uint64_t>{1, 2, 0xabc}, 12)), head("05") + "012000bc0a");
  std::string share;
  for (int i = 0; i < 36; ++i) share += "cd";
  RevealedShare revealed{258, ShareKind::mask_key, {}};
  revealed.value.fill(std::byte{0xcd});
  EXPECT_EQ(to_hex(encode_reveal(round, {revealed})), head("09") + "01000000" + "0201000000000000" + "02" + share);
  EXPECT_EQ(encode_advert(round, {}).size(), 44U + 136U);
  EXPECT_EQ(encode_shares(round, {{}, {{}}}).size(), 44U + 32U + 4U + 8U + 100U);
}

TEST(SecAggMessages, PackVectorsOfEveryWidth) {
  Rng rng(kSeed, Purpose::synthetic_data, 77);
  for (unsigned bits = 1; bits <= 64; ++bits) {
    for (const std::size_t length : {1U, 2U, 7U, 8U, 9U, 63U, 130U}) {
      std::vector<std::uint64_t> values(length);
      for (std::uint64_t& value : values) value = rng.next_u64() >> (64 - bits);
      const SecAggBytes bytes = encode_input(some_round(), values, bits);
      EXPECT_EQ(bytes.size(), 44 + (length * bits + 7) / 8);
      std::vector<std::uint64_t> sum(length);
      add_input(some_round(), bytes, bits, sum);
      ASSERT_EQ(sum, values) << bits << " bits, " << length << " values";
      add_input(some_round(), bytes, bits, sum);
      for (std::uint64_t& value : values) value = (value + value) << (64 - bits) >> (64 - bits);
      ASSERT_EQ(sum, values) << "twice";
    }
  }
}

TEST(SecAggMessages, RefuseABitBeyondTheLastValueAndAddNothing) {
  const std::vector<std::uint64_t> values{1, 2, 0xabc};
  SecAggBytes bytes = encode_input(some_round(), values, 12);
  bytes.back() |= std::byte{0x10};
  std::vector<std::uint64_t> sum(3);
  EXPECT_THAT(refusal_of([&] { add_input(some_round(), bytes, 12, sum); }),
              HasSubstr("has a bit beyond its last value"));
  EXPECT_EQ(sum, std::vector<std::uint64_t>(3));
}

TEST(SecAggMessages, RefuseEveryTruncationAndEveryTrailingByte) {
  for (const Case& each : all_messages()) {
    for (std::size_t size = 0; size < each.bytes.size(); ++size) {
      EXPECT_THROW(each.round_trip(SecAggView(each.bytes).first(size)), ProtocolError)
          << each.name << " of " << size << " bytes";
    }
    SecAggBytes longer = each.bytes;
    longer.push_back(std::byte{0});
    EXPECT_THROW(each.round_trip(longer), ProtocolError) << each.name;
  }
}

TEST(SecAggMessages, RefuseAnotherHead) {
  for (const Case& each : all_messages()) {
    const auto reason = [&](std::size_t at) {
      SecAggBytes bytes = each.bytes;
      bytes[at] ^= std::byte{0x40};
      return refusal_of([&] { each.round_trip(bytes); });
    };
    EXPECT_THAT(reason(0), HasSubstr("does not begin with \"SA\""));
    EXPECT_THAT(reason(2), HasSubstr("is of version 65; this is version 1"));
    EXPECT_THAT(reason(3), HasSubstr("this is none of this protocol"));
    EXPECT_THAT(reason(4), HasSubstr("is of round 69; this is round 5"));
    EXPECT_THAT(reason(43), HasSubstr("is of another session"));
  }
}

// A count is believed only as far as bytes are there for it, so 44 + 4 bytes cannot make anybody allocate gigabytes.
TEST(SecAggMessages, RefuseCountsThatTheBytesDoNotBear) {
  SecAggBytes bytes = encode_roster(some_round(), {});
  for (std::size_t i = 44; i < 48; ++i) bytes[i] = std::byte{0xff};
  EXPECT_THAT(refusal_of([&] { decode_roster(some_round(), bytes); }),
              HasSubstr("counts 4294967295; at most 65536 are allowed"));
  bytes[46] = bytes[47] = std::byte{0};
  EXPECT_THAT(refusal_of([&] { decode_roster(some_round(), bytes); }), HasSubstr("ends too early"));
}

TEST(SecAggMessages, RefuseListsOutOfOrder) {
  const SecAggRound round = some_round();
  const auto reason = [&](ClientId a, ClientId b) {
    return refusal_of([&] { decode_confirmations(round, encode_confirmations(round, {{a, {}}, {b, {}}})); });
  };
  EXPECT_EQ(reason(0, 1), "");
  EXPECT_THAT(reason(5, 5), HasSubstr("lists client 5 twice or out of order"));
  EXPECT_THAT(reason(5, 4), HasSubstr("lists client 4 twice or out of order"));
}

TEST(SecAggMessages, RefuseSharesOfNoKindAndBitsOfNobody) {
  const SecAggRound round = some_round();
  EXPECT_THAT(refusal_of([&] {
                decode_reveal(round, encode_reveal(round, {{1, static_cast<ShareKind>(3), {}}}));
              }),
              HasSubstr("a share of kind 3"));
  EXPECT_THAT(refusal_of([&] {
                decode_survivors(round, 6, encode_survivors(round, {true, true, true, true, true, true, true}));
              }),
              HasSubstr("has a bit beyond its 6 clients"));
}

TEST(SecAggMessages, DigestsDependOnEveryField) {
  const SecAggAdvert advert = some_advert(3);
  std::vector<SecAggAdvert> others(4, advert);
  others[0].client = 4;
  others[1].sealing_key[0] ^= std::byte{1};
  others[2].mask_key[31] ^= std::byte{1};
  others[3].signature[63] ^= std::byte{1};
  for (const SecAggAdvert& other : others) EXPECT_NE(digest_of(other), digest_of(advert));
  for (std::size_t i = 0; i < 3; ++i) EXPECT_NE(signed_bytes(others[i], {}), signed_bytes(advert, {}));
}

/// One to four edits: flipped bits, telling bytes, removed, inserted and repeated pieces, cuts.
SecAggBytes mutated(SecAggBytes bytes, Rng& rng) {
  static constexpr unsigned kTelling[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
  for (std::uint64_t edits = 1 + rng.below(4); edits > 0; --edits) {
    const std::size_t at = rng.below(bytes.size() + 1);
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    const auto piece = static_cast<std::ptrdiff_t>(rng.below(std::min<std::size_t>(bytes.size() - at, 150) + 1));
    switch (rng.below(8)) {
      case 0:
      case 1:
      case 2:
        if (at < bytes.size()) bytes[at] ^= static_cast<std::byte>(1U << rng.below(8));
        break;
      case 3:
        if (at < bytes.size()) bytes[at] = static_cast<std::byte>(kTelling[rng.below(5)]);
        break;
      case 4:
        bytes.erase(place, place + piece);
        break;
      case 5: {
        const SecAggBytes copy(place, place + piece);
        bytes.insert(place, copy.begin(), copy.end());
        break;
      }
      case 6:
        bytes.insert(place, rng.below(9), static_cast<std::byte>(rng.below(256)));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

// Whatever is accepted is the one encoding of what was read.
TEST(SecAggFuzz, DecodersAcceptOnlyWhatTheyWouldWrite) {
  std::uint64_t index = 0;
  for (const Case& each : all_messages()) {
    Rng rng(kSeed, Purpose::synthetic_data, 88, index++);
    int accepted = 0;
    for (int i = 0; i < 20'000; ++i) {
      const SecAggBytes bytes = mutated(each.bytes, rng);
      try {
        ASSERT_EQ(each.round_trip(bytes), bytes) << each.name << ", mutation " << i;
        ++accepted;
      } catch (const ProtocolError&) {
      }
    }
    EXPECT_GT(accepted, 0) << each.name;
  }
}

constexpr SecAggStep kServerSteps[] = {SecAggStep::share, SecAggStep::input, SecAggStep::consistency,
                                       SecAggStep::unmask};

// A client that gets altered bytes aborts, or what it got was as good as the original: then it answers and goes on.
TEST(SecAggFuzz, ClientsTakeMutationsOrAbort) {
  Rig recorded(kClients, plan_for(kClients, 2));
  ASSERT_TRUE(recorded.run().has_value());
  for (const SecAggStep step : kServerSteps) {
    Rng rng(kSeed, Purpose::synthetic_data, 89, static_cast<std::uint64_t>(step));
    int aborted = 0;
    for (int i = 0; i < 150; ++i) {
      Rig rig(kClients, plan_for(kClients, 2));
      for (auto before = SecAggStep::advertise; before < step; before = Rig::next(before))
        rig.answer(before, 0, recorded.received(0)[before]);
      const SecAggBytes bytes = mutated(recorded.received(0)[step], rng);
      SecAggBytes answer;
      const std::string reason = refusal_of([&] { answer = rig.answer(step, 0, bytes); });
      ASSERT_EQ(reason.empty(), rig.client(0).step() != SecAggStep::aborted);
      ASSERT_EQ(reason.empty(), !answer.empty());
      ASSERT_EQ(reason, rig.client(0).abort_reason());
      aborted += reason.empty() ? 0 : 1;
    }
    EXPECT_GT(aborted, 100) << static_cast<int>(step);
  }
}

// What the server said to somebody else, or at another time, is as good as altered; only survivors are told to all
// alike.
TEST(SecAggFuzz, ClientsAbortOnMessagesOfOthersAndOfOtherSteps) {
  Rig recorded(kClients, plan_for(kClients, 2));
  ASSERT_TRUE(recorded.run().has_value());
  for (const SecAggStep step : kServerSteps) {
    for (const SecAggStep other : kServerSteps) {
      for (std::size_t receiver = 0; receiver < kClients; ++receiver) {
        const SecAggBytes& message = recorded.received(receiver)[other];
        if (message == recorded.received(0)[step]) continue;
        Rig rig(kClients, plan_for(kClients, 2));
        for (auto before = SecAggStep::advertise; before < step; before = Rig::next(before))
          rig.answer(before, 0, recorded.received(0)[before]);
        EXPECT_NE(refusal_of([&] { rig.answer(step, 0, message); }), "")
            << static_cast<int>(step) << " got " << static_cast<int>(other) << " of " << receiver;
        EXPECT_EQ(rig.client(0).step(), SecAggStep::aborted);
      }
    }
  }
}

// A server that gets altered bytes refuses them, or counts them; it never ends with a sum that is none of the
// survivors'.
TEST(SecAggFuzz, ServersTakeMutationsOrRefuseThem) {
  Rig recorded(kClients, plan_for(kClients, 2));
  ASSERT_TRUE(recorded.run().has_value());
  int refused = 0;
  Rng rng(kSeed, Purpose::synthetic_data, 90);
  for (int i = 0; i < 200; ++i) {
    const auto step = static_cast<SecAggStep>(i % 5);
    Rig rig(kClients, plan_for(kClients, 2));
    History history(kClients, SecAggStep::done);
    history[3] = step;
    bool sent = false;
    bool counted = false;
    rig.drop(history).tamper([&](SecAggStep at, std::size_t index, SecAggBytes&) {
      if (at != step || index != 4 || sent) return;
      sent = true;
      const std::string reason = refusal_of(
          [&] { counted = rig.hand_in(step, 3, mutated(recorded.sent(3)[step], rng)) == SecAggReceipt::counted; });
      refused += reason.empty() ? 0 : 1;
    });
    const auto sum = rig.run();
    // A vector that was altered is another vector, and shares of it are other shares; the rest cannot be altered
    // unseen.
    if (counted && (step == SecAggStep::input || step == SecAggStep::share)) continue;
    ASSERT_TRUE(sum.has_value()) << i << ": " << rig.server().abort_reason();
    EXPECT_EQ(sum->values, rig.sum_of(sum->survivors)) << i;
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace fl
