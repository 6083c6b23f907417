#include "privacy/secagg/cost.h"

#include <algorithm>
#include <string>

#include "fl_core/base/error.h"
#include "privacy/secagg/messages.h"

namespace fl {
namespace {

/// Of lists and of the credentials that go before the roster.
constexpr std::uint64_t kCount = sizeof(std::uint32_t);
constexpr std::uint64_t kAdvert = sizeof(ClientId) + 2 * sizeof(PublicKey) + sizeof(Signature);
constexpr std::uint64_t kEntry = sizeof(ClientId) + sizeof(SecAggDigest);
constexpr std::uint64_t kBox = sizeof(ClientId) + kSealedSharesBytes;
constexpr std::uint64_t kConfirmation = sizeof(ClientId) + sizeof(Signature);
constexpr std::uint64_t kRevealed = sizeof(ClientId) + sizeof(ShareKind) + kSecAggShareBytes;
constexpr std::uint64_t kCredentialHead = sizeof(ClientId) + kCount;

/// Seconds of one core.
constexpr double kAgreement = 52e-6;        ///< SecaggKeyAgreement; making a key takes the same
constexpr double kSign = 113e-6;            ///< SecaggSign
constexpr double kVerify = 225e-6;          ///< SecaggVerify
constexpr double kSealAndOpen = 2.7e-6;     ///< SecaggSealAndOpen
constexpr double kSplit = 174e-6 / 5100;    ///< SecaggShamirSplit/100/51, for each share and unit of the threshold
constexpr double kCombine = 21.5e-6 / 2601; ///< SecaggShamirCombine/51/51, for the square of the threshold
constexpr double kMaskByte = 0.18e-9;       ///< SecaggMask32, SecaggMask64: a byte of a mask's stream
constexpr double kValue = 2e-9;             ///< coding and packing, or unpacking and adding, one value
constexpr double kCredential = 200e-6;      ///< reading a certificate and checking its P-256 signature

/// Bytes of a mask's stream for one value: mask.h.
double stream_bytes(unsigned bits) { return (bits + 7) / 8; }

std::array<SecAggCost::Step, 5> steps_of(const SecAggPlan& plan, std::uint64_t clients, std::uint64_t degree, std::uint64_t credential_bytes) {
  const std::uint64_t head = kSecAggHeaderBytes;
  const std::uint64_t set = (clients + 7) / 8;
  // In groups of 8, so that length · bits cannot overflow.
  const std::uint64_t packed = plan.length / 8 * plan.bits + (plan.length % 8 * plan.bits + 7) / 8;
  const std::uint64_t credentials = kCount + clients * (kCredentialHead + credential_bytes);
  const std::uint64_t roster = head + 2 * kCount + clients * kEntry + degree * kAdvert;
  return {{{head + kAdvert + credential_bytes, 0},
           {head + sizeof(SecAggDigest) + kCount + degree * kBox, credentials + roster},
           {head + packed, head + set + kCount + degree * kBox},
           {head + sizeof(Signature), head + set},
           {head + kCount + degree * kRevealed, head + kCount + degree * kConfirmation}}};
}

/// With that many who left after they shared.
double server_seconds(const SecAggPlan& plan, const SecAggCost& cost, std::uint32_t gone) {
  const double clients = cost.clients;
  const double survivors = cost.clients - gone;
  const double length = static_cast<double>(plan.length);
  // Of each who left, the masks with its surviving neighbours have to be made again.
  const double pairs = gone * (cost.degree * survivors / clients);
  const double checks = clients * (kCredential + kVerify) + survivors * kVerify;
  const double rebuilding = clients * cost.threshold * cost.threshold * kCombine + (gone + pairs) * kAgreement;
  return checks + rebuilding + survivors * length * kValue + (survivors + pairs) * length * stream_bytes(plan.bits) * kMaskByte;
}

}  // namespace

std::uint64_t SecAggCost::bytes_up() const {
  std::uint64_t bytes = 0;
  for (const Step& step : steps) bytes += step.up;
  return bytes;
}

std::uint64_t SecAggCost::bytes_down() const {
  std::uint64_t bytes = 0;
  for (const Step& step : steps) bytes += step.down;
  return bytes;
}

SecAggCost secagg_cost(const SecAggPlan& plan, std::uint32_t clients, std::uint64_t credential_bytes) {
  check_plan(plan);
  const GraphParameters graph = planned_graph(plan, clients);
  SecAggCost cost;
  cost.clients = clients;
  cost.degree = graph.degree;
  cost.threshold = graph.threshold;
  cost.least_survivors = graph_for(plan, clients).least_survivors;
  if (cost.least_survivors > clients) {
    throw ConfigError("secure_aggregation.minimum_survivors: got " + std::to_string(plan.minimum_survivors) + ", expected at most the " +
                      std::to_string(clients) + " clients of a round");
  }
  cost.adversaries = whole_clients(plan.adversary_rate, clients);
  cost.steps = steps_of(plan, clients, graph.degree, credential_bytes);
  const double degree = graph.degree;
  const double each = 2 * kVerify + 3 * kAgreement + kSealAndOpen + 2 * kSplit * graph.threshold;
  const double masks = (degree + 1) * stream_bytes(plan.bits) * kMaskByte;
  cost.client_seconds = 2 * (kAgreement + kSign) + degree * each + clients * kCredential + static_cast<double>(plan.length) * (kValue + masks);
  cost.server_seconds = server_seconds(plan, cost, 0);
  // In a round of few values a drop-out spares more checks than it makes masks.
  cost.server_seconds_at_worst = std::max(cost.server_seconds, server_seconds(plan, cost, cost.dropouts()));
  return cost;
}

}  // namespace fl
