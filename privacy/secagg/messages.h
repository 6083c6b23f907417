#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fl_core/round/types.h"
#include "privacy/secagg/plan.h"
#include "privacy/secagg/sealed_share.h"
#include "privacy/secagg/shamir.h"
#include "privacy/secagg/signature.h"

/// The messages of secure aggregation and their bytes. Each begins with "SA", version, type, round (8) and session
/// (32); integers are little-endian, lists have a count of 4 bytes, clients in lists ascend strictly, and there is one
/// encoding for each message. decode_*() throw ProtocolError for anything else, another round or session included,
/// before they allocate for it.
namespace fl {

/// Numbers on the wire: never renumber, only append.
enum class SecAggMessageType : std::uint8_t {
  advert = 1,
  roster = 2,
  shares = 3,
  inbox = 4,
  input = 5,
  survivors = 6,
  confirmation = 7,
  confirmations = 8,
  reveal = 9,
};
/// "roster", …
const char* secagg_message_name(SecAggMessageType type);

inline constexpr std::size_t kSecAggHeaderBytes = 44;
/// A share of the mask seed and one of the mask key.
inline constexpr std::size_t kSecAggShareBytes = shamir_share_bytes(SecretKey::kSize);
inline constexpr std::size_t kSealedSharesBytes = 2 * kSecAggShareBytes + kSealedExtraBytes;

/// Client -> server, step 1; server -> neighbours.
struct SecAggAdvert {
  ClientId client = 0;
  PublicKey sealing_key{};
  PublicKey mask_key{};
  Signature signature{};
};

struct SecAggRosterEntry {
  ClientId client = 0;
  SecAggDigest advert{};  ///< digest_of() its advert
};

/// Server -> client, step 2.
struct SecAggRoster {
  std::vector<SecAggRosterEntry> entries;  ///< everybody
  std::vector<SecAggAdvert> adverts;       ///< the receiver's neighbours'
};

struct SealedShares {
  ClientId peer = 0;  ///< to whom, or from whom
  std::array<std::byte, kSealedSharesBytes> sealed{};
};

/// Client -> server, step 2.
struct SecAggShares {
  SecAggDigest seed_commitment{};
  std::vector<SealedShares> boxes;
};

/// A set of clients: one bit a place in the roster.
using SecAggSet = std::vector<bool>;

/// Server -> client, step 3.
struct SecAggInbox {
  SecAggSet sharers;
  std::vector<SealedShares> boxes;
};

struct SecAggSignature {
  ClientId client = 0;
  Signature signature{};
};

enum class ShareKind : std::uint8_t { mask_seed = 1, mask_key = 2 };

struct RevealedShare {
  ClientId owner = 0;
  ShareKind kind = ShareKind::mask_seed;
  std::array<std::byte, kSecAggShareBytes> value{};
};

using SecAggBytes = std::vector<std::byte>;
using SecAggView = std::span<const std::byte>;

SecAggBytes encode_advert(const SecAggRound& round, const SecAggAdvert& advert);
SecAggAdvert decode_advert(const SecAggRound& round, SecAggView bytes);
SecAggBytes encode_roster(const SecAggRound& round, const SecAggRoster& roster);
SecAggRoster decode_roster(const SecAggRound& round, SecAggView bytes);
SecAggBytes encode_shares(const SecAggRound& round, const SecAggShares& shares);
SecAggShares decode_shares(const SecAggRound& round, SecAggView bytes);
SecAggBytes encode_inbox(const SecAggRound& round, const SecAggInbox& inbox);
SecAggInbox decode_inbox(const SecAggRound& round, std::uint32_t clients, SecAggView bytes);
/// Values in [0, 2^bits), packed without gaps, lowest bit first.
SecAggBytes encode_input(const SecAggRound& round, std::span<const std::uint64_t> values, unsigned bits);
/// Adds the values to `sum` mod 2^bits, all or (ProtocolError) nothing. The length is sum's.
void add_input(const SecAggRound& round, SecAggView bytes, unsigned bits, std::span<std::uint64_t> sum);
SecAggBytes encode_survivors(const SecAggRound& round, const SecAggSet& survivors);
SecAggSet decode_survivors(const SecAggRound& round, std::uint32_t clients, SecAggView bytes);
SecAggBytes encode_confirmation(const SecAggRound& round, const Signature& signature);
Signature decode_confirmation(const SecAggRound& round, SecAggView bytes);
SecAggBytes encode_confirmations(const SecAggRound& round, const std::vector<SecAggSignature>& signatures);
std::vector<SecAggSignature> decode_confirmations(const SecAggRound& round, SecAggView bytes);
SecAggBytes encode_reveal(const SecAggRound& round, const std::vector<RevealedShare>& shares);
std::vector<RevealedShare> decode_reveal(const SecAggRound& round, SecAggView bytes);

/// Hash of an advert with its signature.
SecAggDigest digest_of(const SecAggAdvert& advert);
/// What the owner of an advert signs for round and plan (both in `context`, see plan.h).
SecAggBytes signed_bytes(const SecAggAdvert& advert, const SecAggDigest& context);

}  // namespace fl
