#include "client/net/backoff.h"

#include <sys/random.h>

#include <algorithm>
#include <utility>

namespace fl {
namespace {

/// Not fl::Rng, whose streams repeat: devices that start together must not wait alike.
double system_uniform() {
  std::uint64_t bits = 0;
  // With a seeded pool a request of 8 bytes is never cut short; before that it waits for the seed.
  while (::getrandom(&bits, sizeof bits, 0) != static_cast<ssize_t>(sizeof bits)) continue;
  return static_cast<double>(bits >> 11U) * 0x1p-53;
}

std::chrono::milliseconds milliseconds_of(double seconds) { return std::chrono::milliseconds(static_cast<std::int64_t>(seconds * 1000)); }

}  // namespace

Backoff::Backoff(std::function<double()> uniform) : uniform_(uniform ? std::move(uniform) : system_uniform) {}

std::chrono::milliseconds Backoff::next() {
  const double wait = uniform_() * window_s_;
  window_s_ = std::min(2 * window_s_, kLongest_s);
  return milliseconds_of(wait);
}

std::chrono::milliseconds Backoff::asked_for(std::uint32_t retry_s) { return milliseconds_of(retry_s * (1 + uniform_())); }

std::chrono::milliseconds Backoff::longest() { return milliseconds_of(uniform_() * kLongest_s); }

}  // namespace fl
