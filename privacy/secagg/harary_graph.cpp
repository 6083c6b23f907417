#include "privacy/secagg/harary_graph.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "fl_core/base/error.h"
#include "privacy/noise/random_bits.h"

namespace fl {

HararyGraph::HararyGraph(std::uint32_t clients, std::uint32_t degree, const GraphSeed& seed) : degree_(degree) {
  if (degree < 2 || degree >= clients || (degree % 2 != 0 && degree != clients - 1)) {
    throw ConfigError("secure aggregation: no graph of " + std::to_string(clients) + " clients with " +
                      std::to_string(degree) +
                      " neighbours each; expected an even number from 2 to clients - 1, or clients - 1");
  }
  ring_.resize(clients);
  std::iota(ring_.begin(), ring_.end(), 0U);
  RandomBits bits(seed);
  // Fisher and Yates: every order is equally likely.
  for (std::uint32_t i = clients - 1; i > 0; --i) std::swap(ring_[i], ring_[bits.below(i + 1)]);
  seat_.resize(clients);
  for (std::uint32_t seat = 0; seat < clients; ++seat) seat_[ring_[seat]] = seat;
}

std::vector<std::uint32_t> HararyGraph::neighbours(std::uint32_t place) const {
  FL_CHECK(place < clients(), "a place outside the graph");
  std::vector<std::uint32_t> out;
  out.reserve(degree_);
  if (degree_ == clients() - 1) {
    for (std::uint32_t other = 0; other < clients(); ++other) {
      if (other != place) out.push_back(other);
    }
    return out;
  }
  const std::uint32_t seat = seat_[place];
  for (std::uint32_t step = 1; step <= degree_ / 2; ++step) {
    out.push_back(ring_[(seat + step) % clients()]);
    out.push_back(ring_[(seat + clients() - step) % clients()]);
  }
  std::ranges::sort(out);
  return out;
}

bool HararyGraph::are_neighbours(std::uint32_t a, std::uint32_t b) const {
  FL_CHECK(a < clients() && b < clients(), "a place outside the graph");
  if (a == b) return false;
  const std::uint32_t apart = seat_[a] > seat_[b] ? seat_[a] - seat_[b] : seat_[b] - seat_[a];
  return degree_ == clients() - 1 || std::min(apart, clients() - apart) <= degree_ / 2;
}

}  // namespace fl
