#include "privacy/secagg/server.h"

#include <algorithm>

namespace fl {

SecAggServer::SecAggServer(const SecAggRound& round, const SecAggPlan& plan, const PeerDirectory& directory)
    : round_(round), plan_(plan), directory_(&directory) {
  check_plan(plan);
}

std::optional<SecAggReceipt> SecAggServer::screen(SecAggStep step, ClientId from, std::uint32_t& place) const {
  if (step_ > step) return SecAggReceipt::late;
  if (!roster_) throw ProtocolError(secagg_name(from) + " answers a question that was not asked yet");
  const auto found = roster_->place(from);
  if (!found) return SecAggReceipt::stranger;
  place = *found;
  const SecAggStep next = members_[place].next;
  if (step_ < step) throw ProtocolError(secagg_name(from) + " answers a question that was not asked yet");
  if (next > step) return SecAggReceipt::repeated;
  if (next < step) return SecAggReceipt::stranger;
  return std::nullopt;
}

SecAggSet SecAggServer::answered(SecAggStep step) const {
  SecAggSet set(members_.size());
  for (std::size_t place = 0; place < members_.size(); ++place) set[place] = members_[place].next > step;
  return set;
}

bool SecAggServer::open(SecAggStep step) const { return step_ == step; }

void SecAggServer::abort(const std::string& reason) {
  reason_ = "secure aggregation, round " + std::to_string(round_.round) + ": " + reason;
  step_ = SecAggStep::aborted;
  sum_.clear();
  sum_.shrink_to_fit();
}

bool SecAggServer::is_needed(std::uint32_t place) const {
  if (!sharers_[place]) return false;
  return survivors_[place] || roster_->count_neighbours(place, survivors_) > 0;
}

bool SecAggServer::enough(const SecAggSet& left, const char* did) {
  const std::uint32_t answers = count(left);
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    const bool needed = survivors_.empty() ? left[place] : is_needed(place);
    if (!needed) continue;
    const std::uint32_t holders = roster_->count_neighbours(place, left);
    if (holders >= roster_->threshold()) continue;
    abort("only " + std::to_string(holders) + " neighbours of " + secagg_name(roster_->client(place)) + " " + did +
          "; " + std::to_string(roster_->threshold()) + " are needed (" + std::to_string(answers) + " of " +
          std::to_string(members_.size()) + " clients did)");
    return false;
  }
  return true;
}

std::vector<ClientId> SecAggServer::waiting() const {
  std::vector<ClientId> clients;
  for (std::uint32_t place = 0; place < members_.size(); ++place) {
    if (members_[place].next == step_) clients.push_back(roster_->client(place));
  }
  return clients;
}

}  // namespace fl
