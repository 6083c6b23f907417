#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "privacy/secagg/harary_graph.h"
#include "privacy/secagg/key_agreement.h"
#include "privacy/secagg/messages.h"

namespace fl {

/// Who takes part in a round, and all that follows from that: the graph, the threshold, and the hash that every key and
/// signature of the round is bound to. Client and server compute it by the same code from the same list. Immutable.
class SecAggCohort {
 public:
  /// Throws ProtocolError when there are too few or too many clients, when they do not ascend strictly, or when no
  /// graph will do.
  SecAggCohort(const SecAggRound& round, const SecAggPlan& plan, std::vector<SecAggRosterEntry> entries);

  std::uint32_t clients() const { return graph_.clients(); }
  std::uint32_t threshold() const { return planned_.parameters.threshold; }
  std::uint32_t degree() const { return planned_.parameters.degree; }
  /// Fewest sharers and fewest survivors.
  std::uint32_t least_survivors() const { return planned_.least_survivors; }
  /// Over session, round, model, plan and all adverts.
  const SecAggDigest& digest() const { return digest_; }

  ClientId client(std::uint32_t place) const { return entries_[place].client; }
  const SecAggDigest& advert(std::uint32_t place) const { return entries_[place].advert; }
  /// Nothing for somebody who is not in the list.
  std::optional<std::uint32_t> place(ClientId client) const;
  /// Places, ascending.
  std::vector<std::uint32_t> neighbours(std::uint32_t place) const { return graph_.neighbours(place); }
  std::uint32_t count_neighbours(std::uint32_t place, const SecAggSet& among) const;

  /// The context of keys between two clients. The roster's hash stands in for the session, which it covers.
  AgreementContext agreement(AgreementPurpose purpose, ClientId own, ClientId peer) const;
  SealedAddress address(ClientId from, ClientId to) const;
  SecretKey self_mask(const SecretKey& seed, ClientId client) const;
  /// Hash of a mask seed, by which the server knows that it rebuilt the right one. 256 random bits are behind it.
  SecAggDigest seed_commitment(const SecretKey& seed, ClientId client) const;
  /// What clients sign about who shared and who survived.
  SecAggDigest survivor_statement(const SecAggSet& sharers, const SecAggSet& survivors) const;

 private:
  std::uint64_t round_;
  std::vector<SecAggRosterEntry> entries_;
  SecAggGraph planned_;
  SecAggDigest digest_;
  HararyGraph graph_;
};

std::uint32_t count(const SecAggSet& set);
/// "client 7".
std::string secagg_name(ClientId client);

/// Signature domains.
inline constexpr const char* kAdvertDomain = "tributary secagg 1 advert";
inline constexpr const char* kSurvivorDomain = "tributary secagg 1 survivors";

}  // namespace fl
