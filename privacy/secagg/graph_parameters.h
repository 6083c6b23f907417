#pragma once

#include <cstdint>

namespace fl {

/// What the server may do (Bell et al. 2020, sections 4 and 5).
enum class ServerModel : std::uint8_t {
  curious,         ///< keeps to the protocol and reads all it gets, together with the adversarial clients
  semi_malicious,  ///< may tell some clients that a client is alive and others that it dropped out
};

/// What a round of secure aggregation has to stand.
struct GraphRequirements {
  std::uint32_t clients = 0;  ///< who shares secrets in the round: 3 to 1,000,000
  double adversary_rate = 0;  ///< at most this part of them, rounded down, works with the server: [0, 1)
  double dropout_rate = 0;    ///< at most this part of them, rounded down, drops out: [0, 1)
  ServerModel server = ServerModel::semi_malicious;
  int security_bits = 40;     ///< privacy fails with at most 2^-security_bits: 1 to 128
  int correctness_bits = 20;  ///< unmasking fails with at most 2^-correctness_bits: 1 to 128
};

struct GraphParameters {
  std::uint32_t degree =
      0;  ///< neighbours of each client, itself not counted: even, or clients - 1 (the complete graph)
  std::uint32_t threshold = 0;  ///< shares that rebuild a secret: 2 to degree
  bool operator==(const GraphParameters&) const = default;
};

/// That part of so many clients, rounded down. `rate` in [0, 1).
std::uint32_t whole_clients(double rate, std::uint32_t clients);

/// The smallest even degree whose random Harary graph (HararyGraph) meets the requirements, and the smallest threshold
/// for it: with all but the allowed probability the honest survivors stay connected, no client has `threshold`
/// adversarial neighbours (semi-malicious: no server can collect `threshold` answers of both kinds about one client),
/// and every client keeps `threshold` surviving neighbours. If no degree below clients - 1 does, the complete graph,
/// where nothing is left to chance.
///
/// Who drops out is a whole number: 5 % of 10 clients are none, and then threshold = degree may come out, which stands
/// no drop-out. Tails are summed in log space; equal arguments give equal results, so every client recomputes what a
/// server claims. Cost: below a millisecond up to 1,000 clients, some 10 ms for 1,000,000 at rates near the limit.
///
/// Errors: ConfigError for a value out of range, for adversary_rate + dropout_rate > 0.9 (semi-malicious:
/// adversary_rate + 2 · dropout_rate > 0.9), and where not even the complete graph will do.
///
/// Source: Bell, Bonawitz, Gascón, Lepoint, Raykova 2020 (eprint 2020/704); bounds and rounding as in
/// federated-compute, fcp/secagg/server/graph_parameter_finder.cc, save that a threshold raised to 2 (with next to no
/// adversaries) must still be reached by the survivors.
GraphParameters find_graph_parameters(const GraphRequirements& requirements);

}  // namespace fl
