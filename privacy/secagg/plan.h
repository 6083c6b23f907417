#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "privacy/secagg/graph_parameters.h"
#include "privacy/secagg/secret.h"

namespace fl {

/// SHA-256.
using SecAggDigest = std::array<std::byte, 32>;

/// Most clients that one round may have: bounds what a message can make anybody allocate.
inline constexpr std::uint32_t kMaximumSecAggClients = 65'536;

/// Which work the vectors are for. Whoever takes part has to mean the same.
struct SecAggRound {
  SessionId session{};
  std::uint64_t round = 0;
  SecAggDigest model_hash{};  ///< of the weights that the clients train on
};

/// The numbers that a federation fixes for all its rounds. They are part of what every client signs.
struct SecAggPlan {
  double adversary_rate = 0.05;  ///< at most this part of a cohort works with the server
  double dropout_rate = 0.05;    ///< at most this part of a cohort drops out; with more the round is abandoned
  ServerModel server = ServerModel::semi_malicious;
  int security_bits = 40;
  int correctness_bits = 20;
  std::uint32_t minimum_survivors = 3;  ///< fewest vectors in a sum; of two, each would know the other's
  unsigned bits = 32;                   ///< sums are mod 2^bits, 1 to 64
  std::uint64_t length = 0;             ///< values in a vector, at least 1
};

/// What the owner of a client insists on, whatever plan the server proposes.
struct SecAggPolicy {
  double adversary_rate = 0;            ///< at least this is to be withstood
  int security_bits = 40;               ///< at least
  std::uint32_t minimum_survivors = 3;  ///< fewest vectors in a sum
  bool accept_curious = false;          ///< whether a server may be taken for curious only
};

/// Throws ConfigError, naming the key, for a value out of range.
void check_plan(const SecAggPlan& plan);
/// Throws ProtocolError where the plan promises less than the owner insists on.
void check_policy(const SecAggPlan& plan, const SecAggPolicy& policy);

/// What follows from a plan for a roster of that many clients.
struct SecAggGraph {
  GraphParameters parameters;         ///< degree and threshold
  std::uint32_t least_survivors = 0;  ///< fewest that have to be left: clients less the drop-outs that are stood, and not below
                                      ///< minimum_survivors
};
/// For a roster of whatever size turned up. Where no graph stands dropout_rate of so few clients, the most drop-outs that one does
/// stand: privacy is the same, and fewer may leave. Throws ConfigError where not even none will do.
SecAggGraph graph_for(const SecAggPlan& plan, std::uint32_t clients);
/// For the cohort that a round is planned for: all of dropout_rate must be stood, or ConfigError.
GraphParameters planned_graph(const SecAggPlan& plan, std::uint32_t clients);

/// Hash of round and plan: what adverts are signed for.
SecAggDigest digest_of(const SecAggRound& round, const SecAggPlan& plan);

}  // namespace fl
