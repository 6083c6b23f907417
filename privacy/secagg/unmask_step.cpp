// Step 5: one share of each neighbour, then the masks come off.
#include <algorithm>
#include <exception>

#include "privacy/secagg/client.h"
#include "privacy/secagg/mask.h"
#include "privacy/secagg/server.h"

namespace fl {
namespace {

/// Values that one item of work unmasks: setting up all masks costs little beside it. A multiple of 16 (apply_masks).
constexpr std::size_t kRangeValues = 16'384;

}  // namespace

SecAggBytes SecAggClient::unmask(SecAggView message) {
  return run(SecAggStep::unmask, [&] {
    const SecAggDigest statement = roster_->survivor_statement(sharers_, survivors_);
    const std::vector<SecAggSignature> signatures = decode_confirmations(round_, message);
    for (const SecAggSignature& each : signatures) {
      const auto peer = std::ranges::find(peers_, each.client, &Peer::client);
      if (peer == peers_.end() || !survivors_[peer->place]) {
        throw ProtocolError("the survivors are confirmed by " + secagg_name(each.client) +
                            ", who is no surviving neighbour");
      }
      if (!verify_signature(peer->identity, kSurvivorDomain, statement, each.signature)) {
        throw ProtocolError(secagg_name(each.client) + " did not sign the survivors that this client was told");
      }
    }
    if (signatures.size() < roster_->threshold()) {
      throw ProtocolError("only " + std::to_string(signatures.size()) + " neighbours confirmed the survivors; " +
                          std::to_string(roster_->threshold()) + " are needed");
    }
    std::vector<RevealedShare> shares;
    for (const Peer& peer : peers_) {
      if (!sharers_[peer.place]) continue;
      RevealedShare share;
      share.owner = peer.client;
      share.kind = survivors_[peer.place] ? ShareKind::mask_seed : ShareKind::mask_key;
      const SecAggView pair = peer.shares.bytes();
      std::ranges::copy(pair.subspan(share.kind == ShareKind::mask_seed ? 0 : kSecAggShareBytes, kSecAggShareBytes),
                        share.value.begin());
      shares.push_back(share);
    }
    return encode_reveal(round_, shares);
  });
}

SecAggReceipt SecAggServer::add_reveal(ClientId from, SecAggView message) {
  std::uint32_t place = 0;
  if (const auto receipt = screen(SecAggStep::unmask, from, place)) return *receipt;
  std::vector<RevealedShare> shares = decode_reveal(round_, message);
  std::vector<std::uint32_t> owners;
  std::ranges::copy_if(members_[place].neighbours, std::back_inserter(owners),
                       [&](std::uint32_t owner) { return sharers_[owner]; });
  const bool right = std::ranges::equal(shares, owners, [&](const RevealedShare& share, std::uint32_t owner) {
    return share.owner == roster_->client(owner) &&
           share.kind == (survivors_[owner] ? ShareKind::mask_seed : ShareKind::mask_key);
  });
  if (!right) throw ProtocolError(secagg_name(from) + " reveals other shares than those that are due");
  members_[place].revealed = std::move(shares);
  members_[place].next = SecAggStep::done;
  return SecAggReceipt::counted;
}

std::vector<ShamirShare> SecAggServer::shares_of(std::uint32_t owner, ShareKind kind) const {
  std::vector<ShamirShare> shares;
  const std::vector<std::uint32_t>& holders = members_[owner].neighbours;
  for (std::size_t i = 0; i < holders.size(); ++i) {
    const std::vector<RevealedShare>& revealed = members_[holders[i]].revealed;
    const auto share = std::ranges::lower_bound(revealed, roster_->client(owner), {}, &RevealedShare::owner);
    if (share == revealed.end() || share->owner != roster_->client(owner) || share->kind != kind) continue;
    shares.push_back({static_cast<std::uint32_t>(i + 1), SecretBytes(SecAggView(share->value))});
  }
  return shares;
}

bool SecAggServer::is_right(std::uint32_t owner, ShareKind kind, const SecretKey& secret) const {
  if (kind == ShareKind::mask_seed)
    return roster_->seed_commitment(secret, roster_->client(owner)) == members_[owner].seed_commitment;
  return primitives::X25519Key(secret).public_key() == members_[owner].advert.mask_key;
}

SecretKey SecAggServer::rebuild(std::uint32_t owner, ShareKind kind) const {
  std::vector<ShamirShare> shares = shares_of(owner, kind);
  const std::size_t threshold = roster_->threshold();
  const std::string name = secagg_name(roster_->client(owner));
  if (shares.size() < threshold) {
    throw ProtocolError("only " + std::to_string(shares.size()) + " shares of " + name + " came; " +
                        std::to_string(threshold) + " are needed");
  }
  // Neighbouring shares of every start: one liar with any number of spare shares cannot be in all of them.
  const std::size_t starts = shares.size() == threshold ? 1 : shares.size();
  for (std::size_t start = 0; start < starts; ++start) {
    try {
      const SecretBytes bytes =
          shamir_combine(std::span(shares).first(threshold), roster_->threshold(), SecretKey::kSize);
      SecretKey secret(std::span<const std::byte, SecretKey::kSize>(bytes.bytes()));
      if (is_right(owner, kind, secret)) return secret;
    } catch (const ProtocolError&) {
      // These shares give no secret at all; others may.
    }
    std::rotate(shares.begin(), shares.begin() + 1, shares.end());
  }
  throw ProtocolError("the shares of " + name + " do not give its " +
                      (kind == ShareKind::mask_seed ? "mask seed" : "mask key") +
                      ": it shared nonsense, or its neighbours revealed it");
}

void SecAggServer::for_each(std::size_t count, const std::function<void(std::size_t)>& work) const {
  if (!parallel_) {
    for (std::size_t i = 0; i < count; ++i) work(i);
    return;
  }
  std::vector<std::uint8_t> runs(count);  // of bytes: threads write to neighbouring ones
  std::vector<std::exception_ptr> errors(count);
  parallel_(count, [&](std::size_t i) {
    ++runs[i];
    try {
      work(i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  });
  FL_CHECK(std::ranges::count(runs, 1) == static_cast<std::ptrdiff_t>(count),
           "a parallel loop must run every item once");
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

std::vector<SecAggServer::Removal> SecAggServer::masks_of(std::uint32_t owner) const {
  std::vector<Removal> removals;
  const ClientId client = roster_->client(owner);
  if (survivors_[owner]) {
    removals.push_back({roster_->self_mask(rebuild(owner, ShareKind::mask_seed), client), true});
    return removals;
  }
  const AgreementKeys rebuilt(rebuild(owner, ShareKind::mask_key));
  for (const std::uint32_t neighbour : members_[owner].neighbours) {
    if (!survivors_[neighbour]) continue;
    const ClientId survivor = roster_->client(neighbour);
    // The survivor added the mask if the other's id is higher, else it subtracted.
    removals.push_back({rebuilt.agree(members_[neighbour].advert.mask_key,
                                      roster_->agreement(AgreementPurpose::pairwise_mask, client, survivor)),
                        client > survivor});
  }
  return removals;
}

void SecAggServer::remove_masks() {
  std::vector<std::uint32_t> owners;
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    if (is_needed(place)) owners.push_back(place);
  }
  std::vector<std::vector<Removal>> removals(owners.size());
  for_each(owners.size(), [&](std::size_t i) { removals[i] = masks_of(owners[i]); });
  std::vector<SignedMask> masks;
  for (const std::vector<Removal>& of_owner : removals) {
    for (const Removal& removal : of_owner) masks.push_back({&removal.key, removal.subtract});
  }
  // One core takes them off in one piece, so that masks are set up once.
  const std::size_t range = parallel_ ? kRangeValues : sum_.size();
  for_each((sum_.size() + range - 1) / range, [&](std::size_t i) {
    const std::size_t first = i * range;
    apply_masks(masks, std::span(sum_).subspan(first, std::min(range, sum_.size() - first)), plan_.bits, first);
  });
}

std::optional<SecAggSum> SecAggServer::finish() {
  FL_CHECK(open(SecAggStep::unmask) || open(SecAggStep::aborted), "shares are not what is waited for");
  if (!open(SecAggStep::unmask)) return std::nullopt;
  try {
    remove_masks();
  } catch (const ProtocolError& error) {
    abort(error.what());
    return std::nullopt;
  }
  step_ = SecAggStep::done;
  SecAggSum sum;
  sum.values = std::move(sum_);
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    if (survivors_[place]) sum.survivors.push_back(roster_->client(place));
    members_[place].revealed.clear();
  }
  return sum;
}

}  // namespace fl
