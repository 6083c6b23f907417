#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/round/types.h"

namespace fl {

/// What a run folder tells about a run, finished or not.
struct RunData {
  std::string folder;                       ///< as the user named it
  nlohmann::json experiment;                ///< experiment.json: the resolved experiment
  nlohmann::json run;                       ///< run.json; null while the run has not ended
  std::vector<RoundReport> rounds;          ///< metrics.jsonl, ascending, each round once
  std::optional<nlohmann::json> partition;  ///< partition.json: label counts of some clients, and shard sizes
};

/// Reads a run folder. Only experiment.json must be there. A last line of metrics.jsonl that has no end is being
/// written at this moment, or was cut by a crash: it is left out. Of a round that appears twice (a resumed run), the
/// later counts. Throws IoError or ConfigError that name the file, and the line.
RunData read_run(const std::filesystem::path& folder);

/// One HTML page that stands alone: inline style, inline SVG, one inline script for tooltips, nothing loaded, readable
/// without the script. Several runs are compared. All text from the runs is escaped, and the page's content security
/// policy lets no script run but its own. The page is well-formed XML too, and the same input gives the same bytes.
/// At least one run; size is bounded for any number of rounds (curves keep about 800 points, tables 1000 rows).
std::string render_report(const std::vector<RunData>& runs);

}  // namespace fl
