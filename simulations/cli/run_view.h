#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "fl_core/base/error.h"
#include "simulations/cli/terminal.h"

namespace fl {
struct Experiment;
struct RoundReport;
}

namespace fl::cli {

/// Seconds a round and what is left, from the rounds seen so far.
class Pace {
 public:
  explicit Pace(std::uint32_t rounds) : rounds_(rounds) {}
  void add(const RoundReport& report);
  /// "0.42 s/round, 12 s left"; empty before the first round.
  std::string text() const;

 private:
  std::uint32_t rounds_;
  std::uint32_t seen_ = 0;
  std::uint32_t last_ = 0;
  double seconds_ = 0;
};

/// What the user sees while a run goes on: progress on standard error, or with `json` one line a round on standard output.
class RunView {
 public:
  RunView(const Experiment& experiment, bool json, bool quiet);

  Progress& progress() { return progress_; }
  void arrival(std::uint32_t round, std::size_t answered, std::size_t asked);
  void round(const RoundReport& report);
  /// The same from a line that another program printed: the report without its cohort.
  void round(const RoundReport& report, const nlohmann::json& shown);

 private:
  std::string line(std::uint32_t round, const std::string& more) const;

  std::uint32_t rounds_;
  bool json_;
  Progress progress_;
  Pace pace_;
  std::string measured_;
  std::string spent_;  ///< of a privacy promise
};

struct RunRequest;
/// Ends a run: report.html in the run folder, run.json as the last line or a summary in words. Returns out_of_band when
/// `request.check` is set and the expectation is missed.
ExitCode show_result(const Experiment& experiment, const nlohmann::json& summary, const RunRequest& request);

}  // namespace fl::cli
