// Step 3: the vector under its own mask and those that cancel between neighbours.
#include <algorithm>

#include "privacy/secagg/client.h"
#include "privacy/secagg/mask.h"
#include "privacy/secagg/server.h"

namespace fl {

SecAggBytes SecAggClient::mask(SecAggView message, std::span<const std::uint64_t> input) {
  FL_CHECK(input.size() == plan_.length, "the vector has another length than the plan says");
  return run(SecAggStep::input, [&] {
    open_boxes(decode_inbox(round_, roster_->clients(), message));
    std::vector<std::uint64_t> values(input.begin(), input.end());
    apply_own_masks(values);
    sealing_.reset();
    mask_.reset();
    seed_ = SecretKey();
    return encode_input(round_, values, plan_.bits);
  });
}

void SecAggClient::open_boxes(const SecAggInbox& inbox) {
  sharers_ = inbox.sharers;
  if (!sharers_[place_]) throw ProtocolError("the server says that this client did not share");
  if (count(sharers_) < roster_->least_survivors()) {
    throw ProtocolError(std::to_string(count(sharers_)) + " of " + std::to_string(roster_->clients()) +
                        " clients shared; " + std::to_string(roster_->least_survivors()) + " are needed");
  }
  const std::uint32_t sharing = roster_->count_neighbours(place_, sharers_);
  if (sharing < roster_->threshold()) {
    throw ProtocolError("only " + std::to_string(sharing) + " of this client's neighbours shared; " +
                        std::to_string(roster_->threshold()) + " are needed");
  }
  auto box = inbox.boxes.begin();
  for (Peer& peer : peers_) {
    if (!sharers_[peer.place]) continue;
    if (box == inbox.boxes.end() || box->peer != peer.client) {
      throw ProtocolError("the shares of " + secagg_name(peer.client) + " are missing, though it shared");
    }
    const SecretKey key =
        sealing_->agree(peer.sealing_key, roster_->agreement(AgreementPurpose::share_sealing, self_, peer.client));
    try {
      peer.shares = open_sealed(key, roster_->address(peer.client, self_), box->sealed);
    } catch (const ProtocolError&) {
      throw ProtocolError("the shares of " + secagg_name(peer.client) +
                          " do not open: they were altered, or it saw another roster");
    }
    if (peer.shares.size() != 2 * kSecAggShareBytes)
      throw ProtocolError("the shares of " + secagg_name(peer.client) + " have another size");
    ++box;
  }
  if (box != inbox.boxes.end())
    throw ProtocolError("shares came from " + secagg_name(box->peer) + ", who is no neighbour that shared");
}

void SecAggClient::apply_own_masks(std::vector<std::uint64_t>& values) const {
  std::vector<SecretKey> keys;
  std::vector<SignedMask> masks;
  keys.reserve(peers_.size() + 1);  // masks point into it
  keys.push_back(roster_->self_mask(seed_, self_));
  masks.push_back({&keys.back(), false});
  for (const Peer& peer : peers_) {
    if (!sharers_[peer.place]) continue;
    keys.push_back(
        mask_->agree(peer.mask_key, roster_->agreement(AgreementPurpose::pairwise_mask, self_, peer.client)));
    masks.push_back({&keys.back(), peer.client < self_});
  }
  apply_masks(masks, values, plan_.bits);
}

SecAggReceipt SecAggServer::add_input(ClientId from, SecAggView message) {
  std::uint32_t place = 0;
  if (const auto receipt = screen(SecAggStep::input, from, place)) return *receipt;
  fl::add_input(round_, message, plan_.bits, sum_);
  members_[place].next = SecAggStep::consistency;
  return SecAggReceipt::counted;
}

std::vector<SecAggMail> SecAggServer::close_inputs() {
  FL_CHECK(open(SecAggStep::input) || open(SecAggStep::aborted), "vectors are not what is waited for");
  if (!open(SecAggStep::input)) return {};
  survivors_ = answered(SecAggStep::input);
  if (count(survivors_) < roster_->least_survivors()) {
    abort(std::to_string(count(survivors_)) + " of " + std::to_string(members_.size()) + " clients sent a vector; " +
          std::to_string(roster_->least_survivors()) + " are needed");
    return {};
  }
  if (!enough(survivors_, "sent a vector")) return {};
  std::vector<SecAggMail> mail;
  const SecAggBytes message = encode_survivors(round_, survivors_);
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    if (survivors_[place]) mail.push_back({roster_->client(place), message});
  }
  step_ = SecAggStep::consistency;
  return mail;
}

}  // namespace fl
