#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "fl_core/round/types.h"

namespace fl {

/// What a deployed aggregator is doing: shown on the terminal, in /metrics, /healthz and /readyz.
struct Status {
  enum class Phase : std::uint8_t { starting, waiting, training, aggregating, evaluating, finished, failed };
  Phase phase = Phase::starting;
  std::string run;                      ///< experiment name
  std::uint32_t round = 0;              ///< that is going on, or the last
  std::uint32_t rounds = 0;             ///< that will be run
  std::uint64_t cohort = 0;             ///< asked in this round
  std::uint64_t answered = 0;
  std::uint64_t connected = 0;          ///< welcomed sessions
  std::uint64_t ready = 0;              ///< of them, whose policy allows training
  std::uint64_t registered = 0;         ///< clients ever admitted
  std::uint64_t sessions_total = 0;
  std::uint64_t handshakes_failed = 0;
  std::uint64_t refused = 0;            ///< sessions ended with a refusal
  std::uint64_t bytes_in = 0;           ///< TLS bytes
  std::uint64_t bytes_out = 0;
  std::uint64_t uploads_waiting = 0;    ///< for a credit
  std::array<std::uint64_t, kOutcomes> outcomes{};  ///< members of cohorts by outcome, this process
  double seconds_waiting = 0;           ///< for clients, this process
  double seconds_training = 0;          ///< from the first send to the last arrival
  double seconds_aggregating = 0;       ///< closing, stepping, committing
  double seconds_evaluating = 0;        ///< while nothing else went on
  std::optional<double> accuracy;
  std::optional<double> loss;
  bool cohort_is_secret = false;        ///< nothing is shown that tells how many take part in a round
  std::optional<PrivacyReport> privacy; ///< after the last round of a run with a promise
  std::int64_t certificate_not_after = 0;  ///< of the server, seconds since 1970
  std::int64_t revocation_number = -1;
  std::string last_problem;             ///< one line
};
/// "waiting", "training", …
const char* phase_name(Status::Phase phase);

/// One line for a terminal, without line end: "round 3/20  training  7 of 10 answered  12 clients connected  84.1 % accuracy
/// 34.0 MB in, 12.0 MB out". What is not known yet is left out.
std::string status_line(const Status& status);

/// Why clients cannot be admitted at `now` (seconds since 1970); nothing when they can.
std::optional<std::string> unready_reason(const Status& status, double now);

/// What this process takes of the machine, from /proc. 0: the system does not say.
struct ProcessUsage {
  double start_time = 0;  ///< seconds since 1970
  double cpu_seconds = 0;
  std::uint64_t resident_bytes = 0;
  std::uint64_t open_files = 0;
};
ProcessUsage process_usage();

/// All of it in Prometheus' text format 0.0.4. Names, labels and meanings are listed in docs/operations.md. `now` in seconds since 1970.
std::string prometheus_text(const Status& status, const ProcessUsage& usage, double now);

/// Status shared by the engine's thread, the I/O thread and the health server.
class StatusBoard {
 public:
  Status read() const {
    const std::lock_guard lock(mutex_);
    return status_;
  }
  template <class Change>
  void change(Change change) {
    const std::lock_guard lock(mutex_);
    change(status_);
  }

 private:
  mutable std::mutex mutex_;
  Status status_;
};

}  // namespace fl
