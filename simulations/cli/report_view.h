#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fl_core/base/percentile.h"
#include "simulations/cli/report.h"
#include "simulations/cli/report_chart.h"

/// What the sections of a report share: a run with its unique label and look, and its final numbers.
namespace fl::report {

struct Verdict {
  enum class Band { none, met, missed, open };
  Band band = Band::none;  ///< open: the run has not ended yet, or has no such value
  std::string text;        ///< about the band, one sentence; not escaped
};

struct View {
  const RunData* data = nullptr;
  std::string label;  ///< unique in the report; not escaped
  Look look;
  std::optional<double> accuracy;  ///< last evaluated, in [0, 1]
  std::optional<double> loss;
  Verdict verdict;
};

/// Labels are experiment names, with the folder's name where that is not unique.
std::vector<View> make_views(const std::vector<RunData>& runs);

/// The band an experiment expects, if it is well formed and on `metric` ("accuracy" or "loss").
std::optional<Band> expected_band(const RunData& run, const std::string& metric);
/// Whether noise hides who took part: counts of clients, examples and bytes are withheld.
bool hides_cohort(const RunData& run);
/// "finished", "interrupted", …; "not ended" while there is no run.json.
std::string status_of(const RunData& run);
/// The last report that has per-class, or per-client, accuracies; nullptr if none.
const RoundReport* last_with(const RunData& run, std::vector<double> RoundReport::*list);
/// The finite ones of a report's per-client accuracies, ascending.
std::vector<double> client_accuracies(const RoundReport& report);

// The sections, each "" when the runs have nothing for it.
std::string header_section(const std::vector<View>& views);
std::string numbers_section(const std::vector<View>& views);
std::string differences_section(const std::vector<View>& views);
std::string curves_section(const std::vector<View>& views);
std::string cost_section(const std::vector<View>& views);
std::string privacy_section(const std::vector<View>& views);
std::string outcomes_section(const std::vector<View>& views);
std::string classes_section(const std::vector<View>& views);
std::string clients_section(const std::vector<View>& views);
std::string partition_section(const std::vector<View>& views);
std::string rounds_section(const std::vector<View>& views);
std::string experiments_section(const std::vector<View>& views);

/// <section id="…"><h2>…</h2>…</section>; "" when `content` is empty.
std::string section(const std::string& id, const std::string& title, const std::string& content);
/// <div class="charts">…</div>; "" when empty.
std::string grid(const std::string& figures);
/// A table behind <details>. Cells and titles are escaped here.
std::string details_table(const std::string& summary, const std::vector<std::string>& header,
                          const std::vector<std::vector<std::string>>& rows);

extern const char* const kStyle;
extern const char* const kScript;

}  // namespace fl::report
