// Step 4: everybody signs who shared and who survived.
#include <algorithm>

#include "privacy/secagg/client.h"
#include "privacy/secagg/server.h"

namespace fl {

SecAggBytes SecAggClient::confirm(SecAggView message) {
  return run(SecAggStep::consistency, [&] {
    survivors_ = decode_survivors(round_, roster_->clients(), message);
    for (std::uint32_t place = 0; place < roster_->clients(); ++place) {
      if (survivors_[place] && !sharers_[place]) {
        throw ProtocolError("the server lists " + secagg_name(roster_->client(place)) +
                            " as a survivor, who did not share");
      }
    }
    if (!survivors_[place_])
      throw ProtocolError("the server lists this client as dropped out, though it sent its vector");
    if (count(survivors_) < roster_->least_survivors()) {
      throw ProtocolError(std::to_string(count(survivors_)) + " of " + std::to_string(roster_->clients()) +
                          " clients survived; " + std::to_string(roster_->least_survivors()) + " are needed");
    }
    const std::uint32_t surviving = roster_->count_neighbours(place_, survivors_);
    if (surviving < roster_->threshold()) {
      throw ProtocolError("only " + std::to_string(surviving) + " of this client's neighbours survived; " +
                          std::to_string(roster_->threshold()) + " are needed");
    }
    return encode_confirmation(round_,
                               identity_->sign(kSurvivorDomain, roster_->survivor_statement(sharers_, survivors_)));
  });
}

SecAggReceipt SecAggServer::add_confirmation(ClientId from, SecAggView message) {
  std::uint32_t place = 0;
  if (const auto receipt = screen(SecAggStep::consistency, from, place)) return *receipt;
  const Signature signature = decode_confirmation(round_, message);
  const auto identity = directory_->identity_key(from);
  if (!identity ||
      !verify_signature(*identity, kSurvivorDomain, roster_->survivor_statement(sharers_, survivors_), signature)) {
    throw ProtocolError(secagg_name(from) + " did not sign the survivors that it was told");
  }
  members_[place].signature = signature;
  members_[place].next = SecAggStep::unmask;
  return SecAggReceipt::counted;
}

std::vector<SecAggMail> SecAggServer::close_confirmations() {
  FL_CHECK(open(SecAggStep::consistency) || open(SecAggStep::aborted), "confirmations are not what is waited for");
  if (!open(SecAggStep::consistency)) return {};
  const SecAggSet confirmed = answered(SecAggStep::consistency);
  if (!enough(confirmed, "confirmed the survivors")) return {};
  std::vector<SecAggMail> mail;
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    if (!confirmed[place]) continue;
    std::vector<SecAggSignature> signatures;
    for (const std::uint32_t neighbour : members_[place].neighbours) {
      if (confirmed[neighbour]) signatures.push_back({roster_->client(neighbour), members_[neighbour].signature});
    }
    mail.push_back({roster_->client(place), encode_confirmations(round_, signatures)});
  }
  step_ = SecAggStep::unmask;
  return mail;
}

}  // namespace fl
