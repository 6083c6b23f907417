// Step 1: keys for the round, signed by the enrolled identity.
#include "privacy/secagg/client.h"
#include "privacy/secagg/server.h"

namespace fl {

SecAggBytes SecAggClient::advertise() {
  return run(SecAggStep::advertise, [&] {
    seed_ = draw_secret(*bits_);
    sealing_.emplace(draw_secret(*bits_));
    mask_.emplace(draw_secret(*bits_));
    SecAggAdvert advert;
    advert.client = self_;
    advert.sealing_key = sealing_->public_key();
    advert.mask_key = mask_->public_key();
    advert.signature = identity_->sign(kAdvertDomain, signed_bytes(advert, digest_of(round_, plan_)));
    own_advert_ = digest_of(advert);
    return encode_advert(round_, advert);
  });
}

SecAggReceipt SecAggServer::add_advert(ClientId from, SecAggView message) {
  if (!open(SecAggStep::advertise)) return SecAggReceipt::late;
  if (adverts_.contains(from)) return SecAggReceipt::repeated;
  const auto identity = directory_->identity_key(from);
  if (!identity) return SecAggReceipt::stranger;
  const SecAggAdvert advert = decode_advert(round_, message);
  if (advert.client != from)
    throw ProtocolError(secagg_name(from) + " sent an advert of " + secagg_name(advert.client));
  if (!verify_signature(*identity, kAdvertDomain, signed_bytes(advert, digest_of(round_, plan_)), advert.signature)) {
    throw ProtocolError("the advert of " + secagg_name(from) +
                        " is not signed by its enrolled identity for this session, round, model and plan");
  }
  // Any private key finds a point of low order, which would make every neighbour abort.
  const primitives::X25519Key probe(SecretKey(std::span<const std::byte, SecretKey::kSize>(round_.session)));
  for (const PublicKey& key : {advert.sealing_key, advert.mask_key}) {
    if (!probe.agree(key)) throw ProtocolError(secagg_name(from) + " advertises a key of low order");
    if (keys_.contains(key)) throw ProtocolError(secagg_name(from) + " advertises a key of another client");
  }
  if (advert.sealing_key == advert.mask_key)
    throw ProtocolError(secagg_name(from) + " advertises one key for two purposes");
  keys_.insert({advert.sealing_key, advert.mask_key});
  adverts_.emplace(from, advert);
  return SecAggReceipt::counted;
}

std::vector<SecAggMail> SecAggServer::close_adverts() {
  FL_CHECK(open(SecAggStep::advertise) || open(SecAggStep::aborted), "adverts were closed before");
  if (!open(SecAggStep::advertise)) return {};
  std::vector<SecAggRosterEntry> entries;
  for (const auto& [client, advert] : adverts_) entries.push_back({client, digest_of(advert)});
  try {
    roster_.emplace(round_, plan_, entries);
  } catch (const ProtocolError& error) {
    abort(error.what());
    return {};
  }
  std::vector<SecAggMail> mail;
  members_.resize(roster_->clients());
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    Member& member = members_[place];
    member.advert = adverts_.at(roster_->client(place));
    member.neighbours = roster_->neighbours(place);
  }
  adverts_.clear();
  keys_.clear();
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    SecAggRoster message{entries, {}};
    for (const std::uint32_t neighbour : members_[place].neighbours)
      message.adverts.push_back(members_[neighbour].advert);
    mail.push_back({roster_->client(place), encode_roster(round_, message)});
  }
  step_ = SecAggStep::share;
  return mail;
}

}  // namespace fl
