#include "privacy/secagg/plan.h"

#include <algorithm>
#include <bit>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "privacy/secagg/binding.h"

namespace fl {
namespace {

void require(bool holds, const std::string& what) {
  if (!holds) throw ConfigError("secure_aggregation." + what);
}

bool is_rate(double rate) { return rate >= 0 && rate < 1; }

}  // namespace

void check_plan(const SecAggPlan& plan) {
  require(is_rate(plan.adversary_rate),
          "adversary_rate is " + std::to_string(plan.adversary_rate) + "; use 0 or more and less than 1");
  require(is_rate(plan.dropout_rate),
          "dropout_rate is " + std::to_string(plan.dropout_rate) + "; use 0 or more and less than 1");
  require(plan.server == ServerModel::curious || plan.server == ServerModel::semi_malicious,
          "server is neither curious nor semi_malicious");
  require(plan.security_bits >= 1 && plan.security_bits <= 128,
          "security_bits is " + std::to_string(plan.security_bits) + "; use 1 to 128");
  require(plan.correctness_bits >= 1 && plan.correctness_bits <= 128,
          "correctness_bits is " + std::to_string(plan.correctness_bits) + "; use 1 to 128");
  require(plan.minimum_survivors >= 3 && plan.minimum_survivors <= kMaximumSecAggClients,
          "minimum_survivors is " + std::to_string(plan.minimum_survivors) + "; use 3 to " +
              std::to_string(kMaximumSecAggClients));
  require(plan.bits >= 1 && plan.bits <= 64, "bits is " + std::to_string(plan.bits) + "; use 1 to 64");
  // 2^40 values are far more than any model has; bytes of a message must not overflow.
  require(plan.length >= 1 && plan.length <= std::uint64_t{1} << 40U,
          "length is " + std::to_string(plan.length) + "; use 1 to 2^40");
}

void check_policy(const SecAggPlan& plan, const SecAggPolicy& policy) {
  const auto insist = [](bool holds, const std::string& what) {
    if (!holds) throw ProtocolError("the server's plan for secure aggregation has " + what);
  };
  insist(plan.adversary_rate >= policy.adversary_rate, "adversary_rate " + std::to_string(plan.adversary_rate) +
                                                           "; this client insists on " +
                                                           std::to_string(policy.adversary_rate) + " or more");
  insist(plan.security_bits >= policy.security_bits, "security_bits " + std::to_string(plan.security_bits) +
                                                         "; this client insists on " +
                                                         std::to_string(policy.security_bits) + " or more");
  insist(plan.minimum_survivors >= policy.minimum_survivors,
         "minimum_survivors " + std::to_string(plan.minimum_survivors) + "; this client insists on " +
             std::to_string(policy.minimum_survivors) + " or more");
  insist(policy.accept_curious || plan.server == ServerModel::semi_malicious,
         "server \"curious\"; this client insists on \"semi_malicious\"");
}

GraphParameters planned_graph(const SecAggPlan& plan, std::uint32_t clients) {
  return find_graph_parameters({clients, plan.adversary_rate, plan.dropout_rate, plan.server, plan.security_bits, plan.correctness_bits});
}

SecAggGraph graph_for(const SecAggPlan& plan, std::uint32_t clients) {
  std::uint32_t dropouts = whole_clients(plan.dropout_rate, clients);
  for (;; --dropouts) {
    const double rate = static_cast<double>(dropouts) / std::max(1U, clients);
    try {
      const GraphParameters parameters =
          find_graph_parameters({clients, plan.adversary_rate, rate, plan.server, plan.security_bits, plan.correctness_bits});
      return {parameters, std::max(plan.minimum_survivors, clients - dropouts)};
    } catch (const ConfigError&) {
      if (dropouts == 0) throw;
    }
  }
}

SecAggDigest digest_of(const SecAggRound& round, const SecAggPlan& plan) {
  Binding context("tributary secagg 1 context");
  context.add(round.session).add(round.round).add(round.model_hash);
  context.add(std::bit_cast<std::uint64_t>(plan.adversary_rate)).add(std::bit_cast<std::uint64_t>(plan.dropout_rate));
  context.add(static_cast<std::uint8_t>(plan.server));
  context.add(static_cast<std::uint32_t>(plan.security_bits)).add(static_cast<std::uint32_t>(plan.correctness_bits));
  context.add(plan.minimum_survivors).add(std::uint32_t{plan.bits}).add(plan.length);
  return Sha256().add(context.bytes()).finish();
}

}  // namespace fl
