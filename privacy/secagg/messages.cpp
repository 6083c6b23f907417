#include "privacy/secagg/messages.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "privacy/secagg/binding.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "vectors are packed from words as they lie in memory");

constexpr std::uint8_t kVersion = 1;
constexpr std::size_t kAdvertBytes = 8 + 32 + 32 + 64;
constexpr std::size_t kEntryBytes = 8 + 32;
constexpr std::size_t kBoxBytes = 8 + kSealedSharesBytes;
constexpr std::size_t kSignatureBytes = 8 + 64;
constexpr std::size_t kRevealedBytes = 8 + 1 + kSecAggShareBytes;

/// Writes a message of known size.
class Writer {
 public:
  Writer(SecAggMessageType type, const SecAggRound& round, std::size_t body_bytes) {
    bytes_.reserve(kSecAggHeaderBytes + body_bytes);
    number(std::uint8_t{'S'});
    number(std::uint8_t{'A'});
    number(kVersion);
    number(static_cast<std::uint8_t>(type));
    number(round.round);
    raw(round.session);
  }

  template <std::unsigned_integral T>
  void number(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i)
      bytes_.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(value) >> (8 * i)));
  }
  void raw(SecAggView bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  void count(std::size_t items) { number(static_cast<std::uint32_t>(items)); }
  void advert(const SecAggAdvert& advert) {
    number(advert.client);
    raw(advert.sealing_key);
    raw(advert.mask_key);
    raw(advert.signature);
  }
  void boxes(const std::vector<SealedShares>& boxes) {
    count(boxes.size());
    for (const SealedShares& box : boxes) {
      number(box.peer);
      raw(box.sealed);
    }
  }
  void set(const SecAggSet& set) {
    for (std::size_t first = 0; first < set.size(); first += 8) {
      unsigned byte = 0;
      for (std::size_t i = 0; i < std::min<std::size_t>(8, set.size() - first); ++i)
        byte |= set[first + i] ? 1U << i : 0U;
      number(static_cast<std::uint8_t>(byte));
    }
  }
  /// So many bytes more, to be written to.
  std::span<std::byte> room(std::size_t bytes) {
    bytes_.resize(bytes_.size() + bytes);
    return std::span(bytes_).last(bytes);
  }
  SecAggBytes take() { return std::move(bytes_); }

 private:
  SecAggBytes bytes_;
};

/// Reads a message; throws ProtocolError for whatever is not there.
class Reader {
 public:
  Reader(SecAggMessageType type, const SecAggRound& round, SecAggView bytes)
      : name_(secagg_message_name(type)), rest_(bytes) {
    if (rest_.size() < kSecAggHeaderBytes)
      fail("has " + std::to_string(rest_.size()) + " bytes; its head alone has 44");
    if (number<std::uint8_t>() != 'S' || number<std::uint8_t>() != 'A') fail("does not begin with \"SA\"");
    const auto version = number<std::uint8_t>();
    if (version != kVersion) fail("is of version " + std::to_string(version) + "; this is version 1");
    const auto found = number<std::uint8_t>();
    if (found != static_cast<std::uint8_t>(type)) {
      fail(std::string("is due, but this is ") + secagg_message_name(static_cast<SecAggMessageType>(found)));
    }
    const auto of_round = number<std::uint64_t>();
    if (of_round != round.round)
      fail("is of round " + std::to_string(of_round) + "; this is round " + std::to_string(round.round));
    if (raw<32>() != round.session) fail("is of another session");
  }

  template <std::unsigned_integral T>
  T number() {
    const SecAggView bytes = take(sizeof(T));
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i) value |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
    return static_cast<T>(value);
  }
  template <std::size_t kBytes>
  std::array<std::byte, kBytes> raw() {
    std::array<std::byte, kBytes> out;
    std::ranges::copy(take(kBytes), out.begin());
    return out;
  }
  SecAggView take(std::size_t bytes) {
    if (bytes > rest_.size()) fail("ends too early");
    const SecAggView piece = rest_.first(bytes);
    rest_ = rest_.subspan(bytes);
    return piece;
  }
  /// A count of items of that size, all of which are there.
  std::size_t count(std::size_t item_bytes) {
    const auto items = number<std::uint32_t>();
    if (items > kMaximumSecAggClients)
      fail("counts " + std::to_string(items) + "; at most " + std::to_string(kMaximumSecAggClients) + " are allowed");
    if (items * item_bytes > rest_.size()) fail("ends too early");
    return items;
  }
  /// A list of items that begin with a client, strictly ascending.
  template <class Item, class Read>
  std::vector<Item> list(std::size_t item_bytes, Read read) {
    std::vector<Item> items;
    const std::size_t size = count(item_bytes);
    items.reserve(size);
    ClientId last = 0;
    for (std::size_t i = 0; i < size; ++i) {
      const auto client = number<ClientId>();
      if (i > 0 && client <= last) fail("lists client " + std::to_string(client) + " twice or out of order");
      last = client;
      items.push_back(read(client));
    }
    return items;
  }
  SecAggAdvert advert(ClientId client) {
    SecAggAdvert advert;
    advert.client = client;
    advert.sealing_key = raw<32>();
    advert.mask_key = raw<32>();
    advert.signature = raw<64>();
    return advert;
  }
  std::vector<SealedShares> boxes() {
    return list<SealedShares>(kBoxBytes, [&](ClientId client) {
      return SealedShares{client, raw<kSealedSharesBytes>()};
    });
  }
  SecAggSet set(std::uint32_t clients) {
    const SecAggView bytes = take((std::size_t{clients} + 7) / 8);
    SecAggSet set(clients);
    for (std::size_t i = 0; i < bytes.size() * 8; ++i) {
      const bool bit = (std::to_integer<unsigned>(bytes[i / 8]) >> (i % 8) & 1U) != 0;
      if (i < clients) {
        set[i] = bit;
      } else if (bit) {
        fail("has a bit beyond its " + std::to_string(clients) + " clients");
      }
    }
    return set;
  }
  void end() const {
    if (!rest_.empty()) fail("has " + std::to_string(rest_.size()) + " bytes too many");
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw ProtocolError("the message \"" + name_ + "\" " + what);
  }
  SecAggView rest() const { return rest_; }

 private:
  std::string name_;
  SecAggView rest_;
};

std::uint64_t packed_bytes(std::uint64_t values, unsigned bits) {
  // Values come in groups of 8, so that length · bits cannot overflow.
  return values / 8 * bits + (values % 8 * bits + 7) / 8;
}

std::uint64_t low_bits(unsigned bits) { return bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << bits) - 1; }

}  // namespace

const char* secagg_message_name(SecAggMessageType type) {
  switch (type) {
    case SecAggMessageType::advert:
      return "advert";
    case SecAggMessageType::roster:
      return "roster";
    case SecAggMessageType::shares:
      return "shares";
    case SecAggMessageType::inbox:
      return "inbox";
    case SecAggMessageType::input:
      return "input";
    case SecAggMessageType::survivors:
      return "survivors";
    case SecAggMessageType::confirmation:
      return "confirmation";
    case SecAggMessageType::confirmations:
      return "confirmations";
    case SecAggMessageType::reveal:
      return "reveal";
  }
  return "none of this protocol";
}

SecAggBytes encode_advert(const SecAggRound& round, const SecAggAdvert& advert) {
  Writer writer(SecAggMessageType::advert, round, kAdvertBytes);
  writer.advert(advert);
  return writer.take();
}

SecAggAdvert decode_advert(const SecAggRound& round, SecAggView bytes) {
  Reader reader(SecAggMessageType::advert, round, bytes);
  const auto client = reader.number<ClientId>();
  const SecAggAdvert advert = reader.advert(client);
  reader.end();
  return advert;
}

SecAggBytes encode_roster(const SecAggRound& round, const SecAggRoster& roster) {
  Writer writer(SecAggMessageType::roster, round,
                8 + roster.entries.size() * kEntryBytes + roster.adverts.size() * kAdvertBytes);
  writer.count(roster.entries.size());
  for (const SecAggRosterEntry& entry : roster.entries) {
    writer.number(entry.client);
    writer.raw(entry.advert);
  }
  writer.count(roster.adverts.size());
  for (const SecAggAdvert& advert : roster.adverts) writer.advert(advert);
  return writer.take();
}

SecAggRoster decode_roster(const SecAggRound& round, SecAggView bytes) {
  Reader reader(SecAggMessageType::roster, round, bytes);
  SecAggRoster roster;
  roster.entries = reader.list<SecAggRosterEntry>(kEntryBytes, [&](ClientId client) {
    return SecAggRosterEntry{client, reader.raw<32>()};
  });
  roster.adverts = reader.list<SecAggAdvert>(kAdvertBytes, [&](ClientId client) { return reader.advert(client); });
  reader.end();
  return roster;
}

SecAggBytes encode_shares(const SecAggRound& round, const SecAggShares& shares) {
  Writer writer(SecAggMessageType::shares, round, 36 + shares.boxes.size() * kBoxBytes);
  writer.raw(shares.seed_commitment);
  writer.boxes(shares.boxes);
  return writer.take();
}

SecAggShares decode_shares(const SecAggRound& round, SecAggView bytes) {
  Reader reader(SecAggMessageType::shares, round, bytes);
  SecAggShares shares;
  shares.seed_commitment = reader.raw<32>();
  shares.boxes = reader.boxes();
  reader.end();
  return shares;
}

SecAggBytes encode_inbox(const SecAggRound& round, const SecAggInbox& inbox) {
  Writer writer(SecAggMessageType::inbox, round, inbox.sharers.size() / 8 + 5 + inbox.boxes.size() * kBoxBytes);
  writer.set(inbox.sharers);
  writer.boxes(inbox.boxes);
  return writer.take();
}

SecAggInbox decode_inbox(const SecAggRound& round, std::uint32_t clients, SecAggView bytes) {
  Reader reader(SecAggMessageType::inbox, round, bytes);
  SecAggInbox inbox;
  inbox.sharers = reader.set(clients);
  inbox.boxes = reader.boxes();
  reader.end();
  return inbox;
}

SecAggBytes encode_input(const SecAggRound& round, std::span<const std::uint64_t> values, unsigned bits) {
  const std::size_t size = packed_bytes(values.size(), bits);
  Writer writer(SecAggMessageType::input, round, size);
  std::byte* out = writer.room(size).data();
  std::uint64_t pending = 0;  // its lowest `used` bits are not yet written
  unsigned used = 0;
  const std::uint64_t mask = low_bits(bits);
  for (const std::uint64_t value : values) {
    const std::uint64_t kept = value & mask;
    pending |= kept << used;
    if (used + bits >= 64) {
      std::memcpy(out, &pending, sizeof pending);
      out += sizeof pending;
      pending = used == 0 ? 0 : kept >> (64 - used);
      used = used + bits - 64;
    } else {
      used += bits;
    }
  }
  std::memcpy(out, &pending, (used + 7) / 8);
  return writer.take();
}

void add_input(const SecAggRound& round, SecAggView bytes, unsigned bits, std::span<std::uint64_t> sum) {
  Reader reader(SecAggMessageType::input, round, bytes);
  const std::uint64_t expected = packed_bytes(sum.size(), bits);
  if (reader.rest().size() != expected) {
    reader.fail("has " + std::to_string(reader.rest().size()) + " bytes of values; " + std::to_string(sum.size()) +
                " values of " + std::to_string(bits) + " bits have " + std::to_string(expected));
  }
  const SecAggView packed = reader.rest();
  const unsigned last_bits = static_cast<unsigned>(sum.size() % 8 * bits % 8);
  if (last_bits != 0 && (std::to_integer<unsigned>(packed.back()) >> last_bits) != 0)
    reader.fail("has a bit beyond its last value");
  const std::uint64_t mask = low_bits(bits);
  std::size_t at = 0;
  std::uint64_t pending = 0;
  unsigned held = 0;
  for (std::uint64_t& total : sum) {
    std::uint64_t value = pending;
    if (held < bits) {
      const SecAggView piece = packed.subspan(at, std::min(sizeof(std::uint64_t), packed.size() - at));
      std::uint64_t word = 0;
      if (piece.size() == sizeof word) {
        std::memcpy(&word, piece.data(), sizeof word);  // of known size, which is faster
      } else {
        std::memcpy(&word, piece.data(), piece.size());
      }
      at += piece.size();
      const unsigned fresh = bits - held;
      value |= word << held;  // held < bits <= 64
      pending = fresh == 64 ? 0 : word >> fresh;
      held = static_cast<unsigned>(8 * piece.size()) - fresh;
    } else {
      pending = bits == 64 ? 0 : pending >> bits;
      held -= bits;
    }
    total = (total + (value & mask)) & mask;
  }
}

SecAggBytes encode_survivors(const SecAggRound& round, const SecAggSet& survivors) {
  Writer writer(SecAggMessageType::survivors, round, survivors.size() / 8 + 1);
  writer.set(survivors);
  return writer.take();
}

SecAggSet decode_survivors(const SecAggRound& round, std::uint32_t clients, SecAggView bytes) {
  Reader reader(SecAggMessageType::survivors, round, bytes);
  SecAggSet survivors = reader.set(clients);
  reader.end();
  return survivors;
}

SecAggBytes encode_confirmation(const SecAggRound& round, const Signature& signature) {
  Writer writer(SecAggMessageType::confirmation, round, 64);
  writer.raw(signature);
  return writer.take();
}

Signature decode_confirmation(const SecAggRound& round, SecAggView bytes) {
  Reader reader(SecAggMessageType::confirmation, round, bytes);
  const Signature signature = reader.raw<64>();
  reader.end();
  return signature;
}

SecAggBytes encode_confirmations(const SecAggRound& round, const std::vector<SecAggSignature>& signatures) {
  Writer writer(SecAggMessageType::confirmations, round, 4 + signatures.size() * kSignatureBytes);
  writer.count(signatures.size());
  for (const SecAggSignature& each : signatures) {
    writer.number(each.client);
    writer.raw(each.signature);
  }
  return writer.take();
}

std::vector<SecAggSignature> decode_confirmations(const SecAggRound& round, SecAggView bytes) {
  Reader reader(SecAggMessageType::confirmations, round, bytes);
  auto signatures = reader.list<SecAggSignature>(kSignatureBytes, [&](ClientId client) {
    return SecAggSignature{client, reader.raw<64>()};
  });
  reader.end();
  return signatures;
}

SecAggBytes encode_reveal(const SecAggRound& round, const std::vector<RevealedShare>& shares) {
  Writer writer(SecAggMessageType::reveal, round, 4 + shares.size() * kRevealedBytes);
  writer.count(shares.size());
  for (const RevealedShare& share : shares) {
    writer.number(share.owner);
    writer.number(static_cast<std::uint8_t>(share.kind));
    writer.raw(share.value);
  }
  return writer.take();
}

std::vector<RevealedShare> decode_reveal(const SecAggRound& round, SecAggView bytes) {
  Reader reader(SecAggMessageType::reveal, round, bytes);
  auto shares = reader.list<RevealedShare>(kRevealedBytes, [&](ClientId client) {
    const auto kind = reader.number<std::uint8_t>();
    if (kind != 1 && kind != 2) reader.fail("has a share of kind " + std::to_string(kind) + "; there are 1 and 2");
    return RevealedShare{client, static_cast<ShareKind>(kind), reader.raw<kSecAggShareBytes>()};
  });
  reader.end();
  return shares;
}

SecAggDigest digest_of(const SecAggAdvert& advert) {
  Binding binding("tributary secagg 1 advert hash");
  binding.add(advert.client).add(advert.sealing_key).add(advert.mask_key).add(advert.signature);
  return Sha256().add(binding.bytes()).finish();
}

SecAggBytes signed_bytes(const SecAggAdvert& advert, const SecAggDigest& context) {
  Binding binding("advert");
  binding.add(context).add(advert.client).add(advert.sealing_key).add(advert.mask_key);
  return {binding.bytes().begin(), binding.bytes().end()};
}

}  // namespace fl
