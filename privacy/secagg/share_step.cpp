// Step 2: who takes part, and shares of two secrets to each neighbour.
#include <algorithm>

#include "privacy/secagg/client.h"
#include "privacy/secagg/server.h"

namespace fl {

SecAggBytes SecAggClient::share(SecAggView message) {
  return run(SecAggStep::share, [&] {
    SecAggRoster roster = decode_roster(round_, message);
    roster_.emplace(round_, plan_, std::move(roster.entries));
    check_own_entry();
    take_adverts(roster.adverts);
    const SecAggShares shares = seal_shares();
    bits_.reset();
    return encode_shares(round_, shares);
  });
}

void SecAggClient::check_own_entry() {
  const auto place = roster_->place(self_);
  if (!place) throw ProtocolError("the roster leaves this client out");
  if (roster_->advert(*place) != own_advert_)
    throw ProtocolError("the roster has other keys for this client than it sent");
  place_ = *place;
  for (std::uint32_t other = 0; other < roster_->clients(); ++other) {
    if (!directory_->identity_key(roster_->client(other))) {
      throw ProtocolError("the roster lists " + secagg_name(roster_->client(other)) + ", who is not enrolled");
    }
  }
}

void SecAggClient::take_adverts(const std::vector<SecAggAdvert>& adverts) {
  const std::vector<std::uint32_t> neighbours = roster_->neighbours(place_);
  if (adverts.size() != neighbours.size()) {
    throw ProtocolError("the server sent the keys of " + std::to_string(adverts.size()) + " clients; among " +
                        std::to_string(roster_->clients()) + " clients this one has " +
                        std::to_string(neighbours.size()) + " neighbours");
  }
  for (std::size_t i = 0; i < adverts.size(); ++i) {
    const auto identity = directory_->identity_key(roster_->client(neighbours[i]));
    if (!identity) throw ProtocolError(secagg_name(roster_->client(neighbours[i])) + " is not enrolled");
    check_advert(adverts[i], neighbours[i], *identity);
    peers_.push_back({neighbours[i], adverts[i].client, *identity, adverts[i].sealing_key, adverts[i].mask_key, {}});
  }
}

void SecAggClient::check_advert(const SecAggAdvert& advert, std::uint32_t place, const PublicKey& identity) const {
  const std::string name = secagg_name(roster_->client(place));
  if (advert.client != roster_->client(place)) {
    throw ProtocolError("the server sent the keys of " + secagg_name(advert.client) + " where " + name +
                        " is the neighbour");
  }
  if (digest_of(advert) != roster_->advert(place))
    throw ProtocolError("the keys of " + name + " are not those in the roster");
  if (!verify_signature(identity, kAdvertDomain, signed_bytes(advert, digest_of(round_, plan_)), advert.signature)) {
    throw ProtocolError("the keys of " + name +
                        " are not signed by its enrolled identity for this session, round, model and plan: "
                        "they are forged, or it was asked something else");
  }
  for (const PublicKey& own : {sealing_->public_key(), mask_->public_key()}) {
    if (advert.sealing_key == own || advert.mask_key == own) throw ProtocolError(name + " has a key of this client");
  }
}

SecAggShares SecAggClient::seal_shares() {
  const std::uint32_t threshold = roster_->threshold();
  const auto holders = static_cast<std::uint32_t>(peers_.size());
  const std::vector<ShamirShare> of_seed = shamir_split(seed_.bytes(), holders, threshold, *bits_);
  const std::vector<ShamirShare> of_mask = shamir_split(mask_->seed().bytes(), holders, threshold, *bits_);
  SecAggShares shares;
  shares.seed_commitment = roster_->seed_commitment(seed_, self_);
  for (std::size_t i = 0; i < peers_.size(); ++i) {
    const Peer& peer = peers_[i];
    SecretBytes plain(2 * kSecAggShareBytes);
    std::ranges::copy(of_seed[i].value.bytes(), plain.bytes().begin());
    std::ranges::copy(of_mask[i].value.bytes(), plain.bytes().begin() + kSecAggShareBytes);
    const SecretKey key =
        sealing_->agree(peer.sealing_key, roster_->agreement(AgreementPurpose::share_sealing, self_, peer.client));
    const std::vector<std::byte> sealed = seal(key, roster_->address(self_, peer.client), plain.bytes(), *bits_);
    FL_CHECK(sealed.size() == kSealedSharesBytes, "sealed shares of an unexpected size");
    SealedShares box;
    box.peer = peer.client;
    std::ranges::copy(sealed, box.sealed.begin());
    shares.boxes.push_back(box);
  }
  return shares;
}

SecAggReceipt SecAggServer::add_shares(ClientId from, SecAggView message) {
  std::uint32_t place = 0;
  if (const auto receipt = screen(SecAggStep::share, from, place)) return *receipt;
  Member& member = members_[place];
  SecAggShares shares = decode_shares(round_, message);
  const bool right = std::ranges::equal(
      shares.boxes, member.neighbours,
      [&](const SealedShares& box, std::uint32_t neighbour) { return box.peer == roster_->client(neighbour); });
  if (!right) throw ProtocolError(secagg_name(from) + " shares with others than its neighbours");
  member.seed_commitment = shares.seed_commitment;
  member.boxes = std::move(shares.boxes);
  member.next = SecAggStep::input;
  return SecAggReceipt::counted;
}

std::vector<SecAggMail> SecAggServer::close_shares() {
  FL_CHECK(open(SecAggStep::share) || open(SecAggStep::aborted), "shares are not what is waited for");
  if (!open(SecAggStep::share)) return {};
  sharers_ = answered(SecAggStep::share);
  if (count(sharers_) < roster_->least_survivors()) {
    abort(std::to_string(count(sharers_)) + " of " + std::to_string(members_.size()) + " clients shared; " +
          std::to_string(roster_->least_survivors()) + " are needed");
    return {};
  }
  if (!enough(sharers_, "shared")) return {};
  std::vector<SecAggMail> mail;
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    if (!sharers_[place]) continue;
    SecAggInbox inbox{sharers_, {}};
    for (const std::uint32_t neighbour : members_[place].neighbours) {
      if (!sharers_[neighbour]) continue;
      const ClientId receiver = roster_->client(place);
      const auto box = std::ranges::lower_bound(members_[neighbour].boxes, receiver, {}, &SealedShares::peer);
      inbox.boxes.push_back({roster_->client(neighbour), box->sealed});
    }
    mail.push_back({roster_->client(place), encode_inbox(round_, inbox)});
  }
  for (Member& member : members_) {
    member.boxes.clear();
    member.boxes.shrink_to_fit();
  }
  sum_.assign(plan_.length, 0);
  step_ = SecAggStep::input;
  return mail;
}

}  // namespace fl
