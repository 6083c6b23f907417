#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/base/buffer.h"
#include "fl_core/params/parameter_vector.h"

namespace fl {

using ClientId = std::uint64_t;
/// Seconds since the start of the run: wall time in a deployment, virtual time in a simulation.
using Seconds = double;
inline constexpr Seconds kNever = std::numeric_limits<double>::infinity();

/// Losses are summed as integers of this many nats, so that totals do not depend on the order of addition.
inline constexpr double kLossUnit = 0x1p-32;

/// What the server asks of a client.
enum class TaskKind : std::uint8_t {
  train = 0,     ///< fit the weights to the local examples, answer with the delta
  evaluate = 1,  ///< measure the weights on the local held-out examples, answer with metrics only
};

/// Server -> client: one piece of work. `weights` is shared by everyone who gets the task.
struct Task {
  TaskKind kind = TaskKind::train;
  std::uint32_t round = 0;          ///< 1 … rounds
  std::uint32_t model_version = 0;  ///< how many rounds moved the model so far
  std::uint64_t fingerprint = 0;    ///< of the layout
  SharedBuffer weights;             ///< float[N]
};

/// Sums a client reports beside its delta. Integers, so that totals are exact.
struct ClientMetrics {
  std::int64_t examples = 0;
  std::int64_t correct = 0;
  std::int64_t loss_units = 0;  ///< Σ loss in kLossUnit nats
};

/// Client -> server: what training gave. `delta` = local - global.
struct Update {
  ClientId client = 0;
  std::uint32_t round = 0;
  std::uint32_t weight = 1;  ///< integer aggregation weight, 1 … ExactSum::kMaxWeight
  std::uint32_t steps = 0;   ///< optimizer steps taken
  ParameterVector delta;
  ClientMetrics metrics;     ///< of the batches it trained on (train) or its held-out examples (evaluate)
};

/// What became of one member of a cohort. Stored in the journal and shown in reports: never renumber, only append.
enum class Outcome : std::uint8_t {
  accepted = 0,
  left = 1,             ///< vanished before it answered
  late = 2,             ///< had not answered when the round closed
  failed = 3,           ///< answered that it could not do the task
  malformed = 4,        ///< bytes that are no valid update
  wrong_round = 5,      ///< an update of another round or model version
  wrong_model = 6,      ///< another layout fingerprint or length
  not_finite = 7,       ///< NaN or infinity in the delta
  out_of_bound = 8,     ///< some |delta| at or above round.update_bound
  not_summed = 9,       ///< answered, but secure aggregation could not be completed
};
inline constexpr std::size_t kOutcomes = 10;
/// "accepted", "left", … as written in metrics.jsonl.
const char* outcome_name(Outcome outcome);

struct ClientOutcome {
  ClientId client = 0;
  Outcome outcome = Outcome::accepted;
};

/// The mean update of a round, after aggregation.
struct Aggregate {
  ParameterVector mean_delta;
  std::uint64_t total_weight = 0;
  std::uint64_t contributors = 0;
};

/// What a round cost and did for a promise of differential privacy.
struct PrivacyReport {
  double epsilon = 0;                      ///< spent so far, this round included; infinite without noise
  std::optional<double> epsilon_left;      ///< of the promised ε; nothing when noise was set instead
  double delta = 0;
  double clip_norm = 0;                    ///< L2 bound on an update in this round; 0: the server bounds none
  std::optional<double> clipped_fraction;  ///< noisy share of clipped updates, where a mechanism pays for it
  double noise_stddev = 0;                 ///< of the noise on one coordinate of the mean; 0 where devices add it
  std::optional<double> signal_to_noise;   ///< estimated L2 norm of the mean update over that of its noise
  bool is_private = false;                 ///< false: noise from a seed, or none
  bool cohort_is_secret = false;           ///< who took part, and all counts of it, must not be published
};

/// What one round did; everything in it is the same for any number of workers, except the wall seconds.
struct RoundReport {
  std::uint32_t round = 0;
  std::uint32_t model_version = 0;          ///< after the round
  bool abandoned = false;                   ///< too few updates: the model did not move
  std::vector<ClientOutcome> cohort;        ///< in client order
  std::uint64_t bytes_down = 0;             ///< to clients, headers included
  std::uint64_t bytes_up = 0;               ///< from clients, headers included
  std::int64_t examples = 0;                ///< trained on, by accepted clients
  std::uint64_t steps = 0;                  ///< optimizer steps of accepted clients
  double training_loss = 0;                 ///< mean nats an example over accepted clients
  double update_norm = 0;                   ///< L2 norm of the mean delta
  Seconds virtual_seconds = 0;              ///< the transport's clock when the round closed
  double wall_seconds = 0;                  ///< of this round, training and aggregation
  double wall_seconds_evaluation = 0;       ///< from the evaluation's begin to its result; the next round may run meanwhile
  double wall_seconds_evaluation_alone = 0; ///< of these, those in which the run did nothing else: what the evaluation added to it
  std::optional<double> accuracy;           ///< on the test set, in [0, 1], when evaluated this round
  std::optional<double> loss;               ///< mean nats an example
  std::vector<double> class_accuracy;       ///< one a class
  std::vector<double> client_accuracy;      ///< per-client evaluation, ascending; empty when not done this round

  std::optional<PrivacyReport> privacy;     ///< only in runs with a promise

  std::size_t count(Outcome outcome) const;
};

/// The report as it may be shown outside the journal: where the cohort is secret, without it and without what tells of it.
RoundReport published(const RoundReport& report);

/// The report as one line of metrics.jsonl, and back (resume reads them from the journal). What published() withheld is null.
nlohmann::json to_json(const RoundReport& report);
RoundReport report_from_json(const nlohmann::json& json);

}  // namespace fl
