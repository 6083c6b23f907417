#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fl {

/// Public random bytes that all participants of a round agree on (a hash over all adverts) and nobody chose alone.
using GraphSeed = std::array<std::byte, 32>;

/// Who shares secrets with whom: clients sit in a ring in an order that the seed shuffles, and each is a neighbour of
/// the degree/2 on either side. Places are positions 0 to clients - 1 in the round's agreed list. Equal arguments,
/// equal graph, on every machine. Immutable. 8 bytes a client; building shuffles once (1,000,000 clients: some 20 ms).
class HararyGraph {
 public:
  /// ConfigError unless 2 <= degree < clients and degree is even or clients - 1 (the complete graph).
  HararyGraph(std::uint32_t clients, std::uint32_t degree, const GraphSeed& seed);

  std::uint32_t clients() const { return static_cast<std::uint32_t>(seat_.size()); }
  std::uint32_t degree() const { return degree_; }
  /// The `degree` other places that `place` shares with, ascending. REQUIRES: place < clients().
  std::vector<std::uint32_t> neighbours(std::uint32_t place) const;
  /// Symmetric; nobody is its own neighbour. REQUIRES: both < clients().
  bool are_neighbours(std::uint32_t a, std::uint32_t b) const;

 private:
  std::uint32_t degree_;
  std::vector<std::uint32_t> ring_;  ///< seat -> place
  std::vector<std::uint32_t> seat_;  ///< place -> seat
};

}  // namespace fl
