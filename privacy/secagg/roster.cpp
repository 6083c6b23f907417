#include "privacy/secagg/roster.h"

#include <algorithm>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "privacy/secagg/binding.h"

namespace fl {
namespace {

SecAggDigest digest_of_roster(const SecAggRound& round, const SecAggPlan& plan,
                              const std::vector<SecAggRosterEntry>& entries) {
  Binding binding("tributary secagg 1 roster");
  binding.add(digest_of(round, plan)).add(static_cast<std::uint64_t>(entries.size()));
  for (const SecAggRosterEntry& entry : entries) binding.add(entry.client).add(entry.advert);
  return Sha256().add(binding.bytes()).finish();
}

/// How many clients there are, once it is known that so many can take part in a round.
std::uint32_t checked_size(const SecAggPlan& plan, const std::vector<SecAggRosterEntry>& entries) {
  if (entries.size() < plan.minimum_survivors || entries.size() > kMaximumSecAggClients) {
    throw ProtocolError("the roster has " + std::to_string(entries.size()) + " clients; a round needs " +
                        std::to_string(plan.minimum_survivors) + " to " + std::to_string(kMaximumSecAggClients));
  }
  for (std::size_t i = 1; i < entries.size(); ++i) {
    if (entries[i - 1].client >= entries[i].client) {
      throw ProtocolError("the roster lists " + secagg_name(entries[i].client) + " twice or out of order");
    }
  }
  return static_cast<std::uint32_t>(entries.size());
}

SecAggGraph checked_graph(const SecAggPlan& plan, std::uint32_t clients) {
  try {
    return graph_for(plan, clients);
  } catch (const ConfigError& error) {
    throw ProtocolError("no graph of " + std::to_string(clients) + " clients is safe: " + error.what());
  }
}

GraphSeed graph_seed(const SecAggDigest& roster) {
  return Sha256().add(Binding("tributary secagg 1 graph").add(roster).bytes()).finish();
}

}  // namespace

SecAggCohort::SecAggCohort(const SecAggRound& round, const SecAggPlan& plan, std::vector<SecAggRosterEntry> entries)
    : round_(round.round),
      entries_(std::move(entries)),
      planned_(checked_graph(plan, checked_size(plan, entries_))),
      digest_(digest_of_roster(round, plan, entries_)),
      graph_(static_cast<std::uint32_t>(entries_.size()), planned_.parameters.degree, graph_seed(digest_)) {}

std::optional<std::uint32_t> SecAggCohort::place(ClientId client) const {
  const auto found = std::ranges::lower_bound(entries_, client, {}, &SecAggRosterEntry::client);
  if (found == entries_.end() || found->client != client) return std::nullopt;
  return static_cast<std::uint32_t>(found - entries_.begin());
}

std::uint32_t SecAggCohort::count_neighbours(std::uint32_t place, const SecAggSet& among) const {
  std::uint32_t found = 0;
  for (const std::uint32_t neighbour : neighbours(place)) found += among[neighbour] ? 1 : 0;
  return found;
}

AgreementContext SecAggCohort::agreement(AgreementPurpose purpose, ClientId own, ClientId peer) const {
  AgreementContext context;
  context.session = digest_;
  context.round = round_;
  context.purpose = purpose;
  context.own = own;
  context.peer = peer;
  return context;
}

SealedAddress SecAggCohort::address(ClientId from, ClientId to) const {
  return {digest_, round_, from, to, SealedType::shares};
}

SecretKey SecAggCohort::self_mask(const SecretKey& seed, ClientId client) const {
  return self_mask_key(seed, digest_, round_, client);
}

SecAggDigest SecAggCohort::seed_commitment(const SecretKey& seed, ClientId client) const {
  Binding binding("tributary secagg 1 seed");
  binding.add(digest_).add(client);
  // The seed goes straight into the hash: a Binding is not wiped.
  return Sha256().add(binding.bytes()).add(seed.bytes()).finish();
}

SecAggDigest SecAggCohort::survivor_statement(const SecAggSet& sharers, const SecAggSet& survivors) const {
  Binding binding("tributary secagg 1 survivor statement");
  binding.add(digest_);
  for (const SecAggSet* set : {&sharers, &survivors}) {
    for (const bool member : *set) binding.add(static_cast<std::uint8_t>(member));
  }
  return Sha256().add(binding.bytes()).finish();
}

std::uint32_t count(const SecAggSet& set) { return static_cast<std::uint32_t>(std::ranges::count(set, true)); }

std::string secagg_name(ClientId client) { return "client " + std::to_string(client); }

}  // namespace fl
