#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fl_core/config/plan.h"
#include "fl_core/params/sum_code.h"
#include "privacy/mechanism/promise.h"
#include "privacy/secagg/plan.h"

namespace fl {

/// What an update says beside its values. Under secure aggregation only the sums over all updates are seen.
struct SecureTotals {
  std::uint64_t weight = 0;      ///< at most 2^16 - 1 for one client
  std::uint64_t examples = 0;    ///< at most limits::kClientExamples
  std::uint64_t steps = 0;       ///< at most 2^32 - 1
  std::uint64_t loss_units = 0;  ///< in kLossUnit nats, at most 2^63 - 1
};

/// A sum of totals: that of the losses may be wider than 64 bits.
struct SecureTotalsSum {
  __extension__ using Wide = unsigned __int128;
  std::uint64_t weight = 0;
  std::uint64_t examples = 0;
  std::uint64_t steps = 0;
  Wide loss_units = 0;
};

/// What the clients of a round mask and the server sums: the model's values as a SumCode has them, and behind them, where there is no
/// privacy promise, the totals, cut into digits that are so short that no sum of digits reaches 2^bits. Both ends derive it from the
/// plan. Immutable.
class SecureVector {
 public:
  SecureVector(SumCode code, std::uint64_t parameters, bool with_totals);

  const SumCode& code() const { return code_; }
  std::uint64_t parameters() const { return parameters_; }
  bool has_totals() const { return digit_bits_ != 0; }
  /// Coordinates.
  std::uint64_t length() const { return length_; }

  /// One client's vector. `rng` as in SumCode::encode(). REQUIRES: values.size() == parameters().
  ExactSumError fill(std::span<const float> values, const SecureTotals& totals, Rng& rng, std::vector<std::uint64_t>& vector) const;
  /// The two parts of a sum mod 2^bits. REQUIRES: sum.size() == length(), values.size() == parameters(); totals are zero without.
  SecureTotalsSum read(std::span<const std::uint64_t> sum, std::span<std::int64_t> values) const;

 private:
  SumCode code_;
  std::uint64_t parameters_;
  unsigned digit_bits_ = 0;
  std::uint64_t length_ = 0;
};

/// The vector of a run. `promise`: of an experiment with a privacy section, else null. `weight`: what each update counts for, 0 for its
/// own (by examples). Throws ConfigError with the JSON path and the numbers where sums cannot fit or the mechanism must see each update.
SecureVector secure_vector_of(const SecureAggregationPlan& plan, const Promise* promise, std::uint32_t weight, std::uint64_t parameters);

/// What all clients of a run must mean the same by. minimum_survivors is not below the fewest updates that the promise's noise counts on.
SecAggPlan secagg_plan(const SecureAggregationPlan& plan, const SecureVector& vector, const Promise* promise);

/// Refuses a plan with which no round of `cohort` clients could succeed: fewer than minimum_survivors, or no graph for the rates.
/// Throws ConfigError.
void check_cohort(const SecAggPlan& plan, std::uint64_t cohort);

/// The session of a run: a hash of its identity.
SessionId session_of(const std::string& run);

}  // namespace fl
