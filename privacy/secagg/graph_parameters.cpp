#include "privacy/secagg/graph_parameters.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <string>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr std::uint32_t kMinClients = 3;  // of two, each knows the other's update from the sum
constexpr std::uint32_t kMaxClients = 1'000'000;
constexpr double kMaxLostRate = 0.9;
constexpr double kLog2 = 0.693147180559945309417232121458;

/// log(n!). Stirling's series where it is exact to double precision. (std::lgamma writes a global and differs between
/// libraries.)
double log_factorial(std::int64_t n) {
  constexpr std::size_t kTable = 64;
  static const auto table = [] {
    std::array<double, kTable> out{};
    for (std::size_t i = 2; i < kTable; ++i) out[i] = out[i - 1] + std::log(static_cast<double>(i));
    return out;
  }();
  if (n < static_cast<std::int64_t>(kTable)) return table[static_cast<std::size_t>(n)];
  const double x = static_cast<double>(n);
  constexpr double kHalfLogTwoPi = 0.918938533204672741780329736406;
  const double square = x * x;
  return (x + 0.5) * std::log(x) - x + kHalfLogTwoPi + (1.0 / 12 - (1.0 / 360 - 1.0 / (1260 * square)) / square) / x;
}

double log_choose(std::int64_t n, std::int64_t k) { return log_factorial(n) - log_factorial(k) - log_factorial(n - k); }

/// How many marked ones are among `drawn` of `all`, `marked` of which are marked (hypergeometric).
struct Draw {
  std::int64_t all = 0;
  std::int64_t marked = 0;
  std::int64_t drawn = 0;

  double log_probability(std::int64_t x) const {
    return log_choose(marked, x) + log_choose(all - marked, drawn - x) - log_choose(all, drawn);
  }
  /// P[x + 1] / P[x].
  double ratio(std::int64_t x) const {
    return static_cast<double>(marked - x) * static_cast<double>(drawn - x) /
           (static_cast<double>(x + 1) * static_cast<double>(all - marked - drawn + x + 1));
  }
  /// log P[X >= x]: from the largest term outwards, so nothing cancels and nothing overflows.
  double log_at_least(std::int64_t x) const {
    constexpr double kNegligible = 1e-18;
    const std::int64_t first = std::max<std::int64_t>(0, drawn - (all - marked));
    const std::int64_t last = std::min(drawn, marked);
    if (x <= first) return 0;
    if (x > last) return -HUGE_VAL;
    const auto mode = static_cast<std::int64_t>(static_cast<double>(drawn + 1) * static_cast<double>(marked + 1) /
                                                static_cast<double>(all + 2));
    const std::int64_t start = std::clamp(std::max(x, mode), first, last);
    double sum = 1;
    double term = 1;
    for (std::int64_t i = start; i < last && term > kNegligible * sum; ++i) sum += term *= ratio(i);
    term = 1;
    for (std::int64_t i = start; i > x && term > kNegligible * sum; --i) sum += term /= ratio(i - 1);
    return std::min(0.0, log_probability(start) + std::log(sum));
  }
  /// log P[X <= x]: the unmarked ones are then at least drawn - x.
  double log_at_most(std::int64_t x) const { return Draw{all, all - marked, drawn}.log_at_least(drawn - x); }
};

/// Goes through the degrees upwards. Both bounds of the threshold only grow with the degree, so each search goes on
/// where the last one ended.
class Search {
 public:
  explicit Search(const GraphRequirements& requirements)
      : n_(requirements.clients),
        adversaries_(whole_clients(requirements.adversary_rate, requirements.clients)),
        dropouts_(whole_clients(requirements.dropout_rate, requirements.clients)),
        semi_malicious_(requirements.server == ServerModel::semi_malicious),
        // Half of the allowed probability for each of the two ways in which privacy fails.
        log_insecure_(-(requirements.security_bits + 1) * kLog2),
        log_each_insecure_(log_insecure_ - std::log(static_cast<double>(n_))),
        log_each_incorrect_(-requirements.correctness_bits * kLog2 - std::log(static_cast<double>(n_))) {}

  std::optional<GraphParameters> find() {
    for (std::int64_t degree = 2; degree < n_ - 1; degree += 2) {
      if (log_disconnected(degree) >= log_insecure_) continue;
      const Draw adversaries{n_, adversaries_, degree};
      while (adversaries.log_at_least(most_adversaries_ + 1) > log_each_insecure_) ++most_adversaries_;
      const Draw survivors{n_, n_ - dropouts_, degree};
      while (survivors.log_at_most(fewest_survivors_) < log_each_incorrect_) ++fewest_survivors_;
      if (const auto found = accept(degree, most_adversaries_, fewest_survivors_)) return found;
    }
    // Everybody is everybody's neighbour: the numbers themselves, and no chance.
    return accept(n_ - 1, adversaries_, n_ - dropouts_ - 1);
  }

  std::string text() const {
    return std::to_string(n_) + " clients, " + std::to_string(adversaries_) + " of them adversarial and " +
           std::to_string(dropouts_) + " dropping out";
  }

 private:
  /// A ring falls apart if degree/2 neighbours in a row are gone in two places: the union over all pairs of places.
  double log_disconnected(std::int64_t degree) const {
    const std::int64_t bad = adversaries_ + dropouts_;
    if (degree > bad) return -HUGE_VAL;
    return std::log(static_cast<double>(n_)) + std::log(static_cast<double>(n_ - degree - 1)) - kLog2 +
           log_factorial(bad) + log_factorial(n_ - degree) - log_factorial(n_) - log_factorial(bad - degree);
  }

  std::optional<GraphParameters> accept(std::int64_t degree, std::int64_t adversaries, std::int64_t survivors) const {
    // Adversaries answer both questions about a client, honest neighbours one: 2 · threshold must exceed degree +
    // adversaries.
    const std::int64_t reachable = semi_malicious_ ? (degree + adversaries) / 2 : adversaries;
    const std::int64_t threshold = std::max<std::int64_t>(reachable + 1, 2);  // Shamir's sharing with 1 hides nothing
    if (threshold > survivors) return std::nullopt;
    return GraphParameters{static_cast<std::uint32_t>(degree), static_cast<std::uint32_t>(threshold)};
  }

  std::int64_t n_;
  std::int64_t adversaries_;
  std::int64_t dropouts_;
  bool semi_malicious_;
  double log_insecure_;
  double log_each_insecure_;
  double log_each_incorrect_;
  std::int64_t most_adversaries_ = 0;  ///< a client has more of them as neighbours with the allowed probability
  std::int64_t fewest_survivors_ = 0;  ///< a client keeps fewer of them with the allowed probability
};

void check(const GraphRequirements& r) {
  const auto refuse = [](const std::string& what) { throw ConfigError("secure aggregation: " + what); };
  if (r.clients < kMinClients || r.clients > kMaxClients) {
    refuse(std::to_string(r.clients) + " clients in a round; expected 3 to 1000000");
  }
  const auto is_rate = [](double rate) { return rate >= 0 && rate < 1; };  // false for NaN
  if (!is_rate(r.adversary_rate))
    refuse("adversary_rate " + std::to_string(r.adversary_rate) + "; expected 0 to less than 1");
  if (!is_rate(r.dropout_rate))
    refuse("dropout_rate " + std::to_string(r.dropout_rate) + "; expected 0 to less than 1");
  const auto is_bits = [](int bits) { return bits >= 1 && bits <= 128; };
  if (!is_bits(r.security_bits)) refuse("security_bits " + std::to_string(r.security_bits) + "; expected 1 to 128");
  if (!is_bits(r.correctness_bits))
    refuse("correctness_bits " + std::to_string(r.correctness_bits) + "; expected 1 to 128");
  const bool semi = r.server == ServerModel::semi_malicious;
  const double lost = r.adversary_rate + (semi ? 2 : 1) * r.dropout_rate;
  if (lost > kMaxLostRate) {
    refuse(std::string("adversary_rate + ") + (semi ? "2 * " : "") + "dropout_rate is " + std::to_string(lost) +
           "; expected at most 0.9" + (semi ? " against a semi-malicious server" : ""));
  }
}

}  // namespace

std::uint32_t whole_clients(double rate, std::uint32_t clients) {
  // The addition keeps 0.33 of 100 from becoming 32.
  return static_cast<std::uint32_t>(std::floor((rate + 1e-14) * clients));
}

GraphParameters find_graph_parameters(const GraphRequirements& requirements) {
  check(requirements);
  Search search(requirements);
  const auto found = search.find();
  if (!found) {
    throw ConfigError(
        "secure aggregation: among " + search.text() +
        ", no threshold keeps secrets from the adversaries and lets the survivors rebuild them, even if "
        "everybody shares with everybody; expected lower adversary_rate or dropout_rate, or more clients");
  }
  return *found;
}

}  // namespace fl
