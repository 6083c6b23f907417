#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "aggregator/engine/checkpoint.h"
#include "aggregator/engine/pending_evaluation.h"
#include "aggregator/engine/round_engine.h"
#include "aggregator/observer/observer.h"

namespace fl {

/// What a whole run needs. Everything is borrowed and outlives the federation.
struct FederationParts {
  const Experiment& experiment;
  RunFolder& folder;
  RoundEngine& engine;
  Strategy& strategy;
  BeginEvaluation evaluate;                                     ///< on the test set; empty without one
  std::function<void(const RoundReport&)> on_round;             ///< after each completed round; may be empty
  std::function<void(Seconds)> set_clock;                       ///< a resumed run's virtual time; may be empty
  std::function<bool()> should_stop;                            ///< checked between rounds; may be empty
};

/// Sums over all committed rounds of a run.
struct FederationTotals {
  bool stopped_early = false;
  std::uint32_t rounds = 0;
  std::uint64_t client_rounds = 0;  ///< accepted updates
  std::int64_t examples = 0;
  std::uint64_t bytes_down = 0;
  std::uint64_t bytes_up = 0;
  double seconds_training = 0;      ///< wall, of rounds
  double seconds_evaluation = 0;    ///< wall, of evaluations while nothing else went on
  double seconds_rounds = 0;        ///< wall, of rounds of this process, their checkpoints included; not seconds_evaluation
  double cpu_seconds_rounds = 0;    ///< of all threads of this process, likewise: with what they do for evaluations meanwhile
  std::optional<double> accuracy;   ///< of the last evaluation
  std::optional<double> loss;
  std::vector<double> client_accuracy;  ///< of the last per-client evaluation, ascending
  std::string model_sha256;
};

/// A run from its first round to its last: rounds, checkpoints, evaluation, observers. The same object starts a run and goes
/// on with one; what it does next depends on the journal alone.
///
/// The model is evaluated on the test set while the next round runs, to the same bits: a round is completed as soon as its evaluation is
/// there, and always before the next one is committed. Where the next round depends on it, it waits: when an observer may stop the run, when
/// clients are asked to measure, and when this round may be the last.
class Federation {
 public:
  /// `initial` is the model of round 0; run() replaces it by the newest checkpoint when there is one.
  Federation(FederationParts parts, ParameterVector initial);

  /// Takes up the newest checkpoint, or commits the first, and runs what is left. Call it once. Throws Interrupted, TrainingError (too many abandoned rounds in a row), IoError; what was committed
  /// before is safe, and totals() counts it.
  void run();
  const FederationTotals& totals() const { return totals_; }

 private:
  void restore();
  void commit(const RoundReport& report);
  void count_training(const RoundReport& report);
  /// A round that is committed and not completed.
  struct OpenRound {
    RoundReport report;
    std::unique_ptr<PendingEvaluation> evaluation;  ///< null: it is not due
    std::chrono::steady_clock::time_point begun;
    double alone = 0;                               ///< seconds in which nothing but the evaluation went on
  };

  void run_rounds();
  void run_round();
  /// Begins to complete the round that was just committed, and waits for its end where it has to.
  void open(RoundReport report);
  bool next_round_waits_for(const OpenRound& round) const;
  bool measures_clients(const RoundReport& report) const;
  /// Completes the open round if its evaluation is there.
  void look();
  /// Waits for the open round's evaluation, if there is such a round, and completes it.
  void complete();
  /// Keeps of the open round what can be kept while an error ends the run.
  void rescue(bool may_wait) noexcept;
  Verdict observe(const RoundReport& report);
  void give_up_if_stuck(const RoundReport& report);

  FederationParts parts_;
  ParameterVector global_;
  CommittedRound last_;
  std::optional<OpenRound> open_;
  std::vector<std::unique_ptr<Observer>> observers_;
  std::int64_t abandoned_in_a_row_ = 0;
  FederationTotals totals_;
};

}  // namespace fl
