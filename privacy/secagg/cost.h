#pragma once

#include <array>
#include <cstdint>

#include "privacy/secagg/plan.h"

namespace fl {

/// A credential is a certificate in a deployment: an Ed25519 client's from `fl pki` has some 500 bytes.
inline constexpr std::uint64_t kTypicalCredentialBytes = 500;

/// What a round of secure aggregation costs, for plans and reports. Bytes are those of one client in a round without drop-outs, as the
/// messages are encoded (messages.h), with credentials and without frames. Seconds are estimates: counts of operations times what
/// each took on one core of 2.1 GHz with AES instructions in benchmarks/micro (Secagg…, SecAgg…).
struct SecAggCost {
  struct Step {
    std::uint64_t up = 0;    ///< bytes, client to server
    std::uint64_t down = 0;  ///< bytes, server to client
  };

  std::uint32_t clients = 0;
  std::uint32_t degree = 0;           ///< neighbours of a client
  std::uint32_t threshold = 0;        ///< neighbours that together rebuild a client's secret
  std::uint32_t least_survivors = 0;  ///< with fewer the round is abandoned
  std::uint32_t adversaries = 0;      ///< clients that may work with the server
  std::array<Step, 5> steps{};        ///< advertise, share, input, consistency, unmask
  double client_seconds = 0;          ///< of one client
  double server_seconds = 0;          ///< without drop-outs
  double server_seconds_at_worst = 0; ///< with all drop-outs that the plan allows, each after it shared

  std::uint32_t dropouts() const { return clients - least_survivors; }
  std::uint64_t bytes_up() const;
  std::uint64_t bytes_down() const;
};

/// For a round of that many clients, all of whom trained. Throws ConfigError where the plan does not do for so many.
SecAggCost secagg_cost(const SecAggPlan& plan, std::uint32_t clients, std::uint64_t credential_bytes = kTypicalCredentialBytes);

}  // namespace fl
