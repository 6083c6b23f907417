#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "aggregator/engine/privacy_guard.h"
#include "aggregator/engine/secure_collector.h"
#include "aggregator/sampler/sampler.h"
#include "aggregator/strategy/strategy.h"
#include "fl_core/codec/codec.h"
#include "fl_core/base/error.h"
#include "fl_core/config/experiment.h"
#include "fl_core/transport/transport.h"

namespace fl {

/// What a round needs. Everything is borrowed and outlives the engine.
struct RoundParts {
  const Experiment& experiment;
  Transport& transport;
  const Sampler& sampler;
  Strategy& strategy;
  const Codec& codec;
  SharedLayout layout;
  PrivacyGuard* privacy = nullptr;  ///< keeps the promise of a run that makes one
  SecureCollector* secure = nullptr;  ///< of a run under secure aggregation
  /// Called after every arrival of a round; may be empty.
  std::function<void(std::uint32_t round, std::size_t answered, std::size_t asked)> on_progress;
  std::function<void(std::uint32_t round)> on_begin = nullptr;  ///< called when a round's tasks were sent; may be empty
};

/// The synchronous round: choose a cohort, send the model, fold updates in as they arrive, move the model. Plain blocking
/// code over the mailbox; no socket, no thread of its own. The caller's thread runs everything.
class RoundEngine {
 public:
  explicit RoundEngine(RoundParts parts);

  /// Runs round `round` (1, 2, …) on `global`. When enough updates were accepted, `global` moves and `model_version` grows
  /// by one; otherwise the report says `abandoned` and both stay. `global` changes only after everything that can fail.
  /// `look` is called after every arrival, and now and then where the transport waits for one in real time; may be empty. What it throws
  /// ends the round.
  RoundReport run_round(std::uint32_t round, ParameterVector& global, std::uint32_t& model_version, const std::function<void()>& look = nullptr);

  /// Asks `evaluation.per_client_count` clients to measure `global` on their held-out examples, within the round's deadline.
  /// Returns the accuracies of those that have any and answered, ascending.
  std::vector<double> evaluate_clients(std::uint32_t round, const ParameterVector& global, std::uint32_t model_version);

  /// The round is durable: the transport may tell its clients what became of their answers.
  void committed(const RoundReport& report) { parts_.transport.committed(report); }
  PrivacyGuard* privacy() { return parts_.privacy; }

  const SharedLayout& layout() const { return parts_.layout; }

  /// Why the last rejected or failed update was not accepted, in words; empty when none was.
  const std::string& last_reason() const { return last_reason_; }

 private:
  struct Progress;
  struct Candidate;
  void broadcast(TaskKind kind, std::uint32_t round, std::uint32_t version, const ParameterVector& global,
                 const std::vector<ClientId>& cohort, std::uint64_t& bytes_down);
  void collect(std::uint32_t round, std::uint32_t version, const std::vector<ClientId>& cohort, RoundReport& report, const std::function<void()>& look);
  /// What an arrival is before anything of it is added. `accepted`: an update to be folded, or an advert that was taken.
  Outcome judge(const Arrival& arrival, std::uint32_t version, Progress& progress, RoundReport& report, UpdateHeader& header);
  Outcome judge_advert(const Arrival& arrival, std::uint32_t version, Progress& progress, const RoundReport& report);
  Outcome malformed(ClientId client, const ProtocolError& error);
  std::span<const float> decoded(const SharedBuffer& update);
  /// Adds updates that passed judge(), those that lie in memory as floats in one pass.
  void fold(std::span<const Candidate> updates, Progress& progress, RoundReport& report);
  Outcome settle(const Candidate& update, ExactSumError error, Progress& progress, RoundReport& report);
  void add(const SecureSum& sum, RoundReport& report);
  /// Moves the model by what was added, and describes it. Returns false when too few updates were accepted.
  bool release(ParameterVector& global, RoundReport& report);

  /// The clients that are asked in this round, ascending.
  std::vector<ClientId> choose_cohort(std::uint32_t round);

  RoundParts parts_;
  std::vector<float> decoded_;  ///< float[N] scratch for codecs whose bytes are no floats; empty until needed
  std::string last_reason_;
};

}  // namespace fl
