// The messages of secure aggregation, and the envelope that brings credentials. An input is which one (1 byte; its
// highest bit: the head of the message comes from the input, too), how many clients there are (1), bits and count of a
// vector's values (1 each), and the bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fl_core/base/error.h"
#include "privacy/secagg/envelope.h"
#include "privacy/secagg/messages.h"

namespace fl {
namespace {

constexpr std::size_t kPrefixBytes = 4;
constexpr unsigned kKinds = 10;  ///< nine messages and the envelope

SecAggRound some_round() {
  SecAggRound round;
  round.round = 5;
  std::ranges::fill(round.session, std::byte{7});
  return round;
}

struct Numbers {
  std::uint32_t clients;
  unsigned bits;
  std::size_t values;
};

/// Reads a message and writes what was read. `items` is how many there were.
SecAggBytes read_and_write(SecAggMessageType type, const Numbers& numbers, SecAggView bytes, std::size_t& items) {
  const SecAggRound round = some_round();
  switch (type) {
    case SecAggMessageType::advert:
      return encode_advert(round, decode_advert(round, bytes));
    case SecAggMessageType::roster: {
      const SecAggRoster roster = decode_roster(round, bytes);
      items = roster.entries.capacity() + roster.adverts.capacity();
      return encode_roster(round, roster);
    }
    case SecAggMessageType::shares: {
      const SecAggShares shares = decode_shares(round, bytes);
      items = shares.boxes.capacity();
      return encode_shares(round, shares);
    }
    case SecAggMessageType::inbox: {
      const SecAggInbox inbox = decode_inbox(round, numbers.clients, bytes);
      FL_CHECK(inbox.sharers.size() == numbers.clients, "a set of another size");
      items = inbox.boxes.capacity();
      return encode_inbox(round, inbox);
    }
    case SecAggMessageType::input: {
      std::vector<std::uint64_t> sum(numbers.values);
      add_input(round, bytes, numbers.bits, sum);
      FL_CHECK(std::ranges::all_of(sum, [&](std::uint64_t value) { return value >> (numbers.bits - 1) <= 1; }),
               "a value out of range");
      return encode_input(round, sum, numbers.bits);
    }
    case SecAggMessageType::survivors:
      return encode_survivors(round, decode_survivors(round, numbers.clients, bytes));
    case SecAggMessageType::confirmation:
      return encode_confirmation(round, decode_confirmation(round, bytes));
    case SecAggMessageType::confirmations: {
      const auto signatures = decode_confirmations(round, bytes);
      items = signatures.capacity();
      return encode_confirmations(round, signatures);
    }
    case SecAggMessageType::reveal: {
      const auto shares = decode_reveal(round, bytes);
      items = shares.capacity();
      return encode_reveal(round, shares);
    }
  }
  throw ProtocolError("no such message");
}

/// The head that a message of that type has: that of an empty set, but for the type.
SecAggBytes head_of(SecAggMessageType type) {
  SecAggBytes bytes = encode_survivors(some_round(), {});
  bytes[3] = static_cast<std::byte>(type);
  return bytes;
}

void fuzz_message(std::span<const std::byte> input) {
  const auto byte = [&](std::size_t at) { return std::to_integer<unsigned>(input[at]); };
  const auto type = static_cast<SecAggMessageType>(1 + (byte(0) & 0x7f) % kKinds);
  const Numbers numbers{byte(1), 1 + byte(2) % 64, byte(3)};
  SecAggBytes message;
  if (byte(0) < 0x80) message = head_of(type);
  message.insert(message.end(), input.begin() + kPrefixBytes, input.end());
  std::size_t items = 0;
  const SecAggBytes written = read_and_write(type, numbers, message, items);
  FL_CHECK(written == message, "an accepted message has two encodings");
  FL_CHECK(items <= message.size() / 40, "more room was made than there are items");
}

void fuzz_envelope(SecAggView bytes) {
  const Envelope envelope = decode_envelope(bytes);
  std::vector<Credential> credentials;
  for (const auto& [client, credential] : envelope.credentials) {
    FL_CHECK(credential.size() <= kCredentialBytes, "a credential that is too long");
    credentials.emplace_back(client, std::vector<std::byte>(credential.begin(), credential.end()));
  }
  FL_CHECK(std::ranges::equal(encode_envelope(credentials, envelope.roster), bytes),
           "an accepted envelope has two encodings");
}

void fuzz_one(std::span<const std::byte> input) {
  if (input.size() < kPrefixBytes) return;
  const bool is_envelope = (std::to_integer<unsigned>(input[0]) & 0x7f) % kKinds == kKinds - 1;
  try {
    if (is_envelope) {
      fuzz_envelope(input.subspan(kPrefixBytes));
    } else {
      fuzz_message(input);
    }
  } catch (const ProtocolError&) {
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
