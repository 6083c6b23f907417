#include "simulations/cli/report_view.h"

#include <algorithm>
#include <cmath>
#include <map>

namespace fl::report {
namespace {

constexpr std::size_t kLabelLength = 48;

std::string folder_name(const RunData& run) {
  std::filesystem::path path(run.folder);
  if (!path.has_filename()) path = path.parent_path();
  return path.filename().string();
}

Verdict judge(const RunData& run, const View& view) {
  const std::string metric = text_at(run.experiment, "expect.metric");
  const std::optional<Band> band = expected_band(run, metric);
  if (!band) return {};
  const bool is_loss = metric == "loss";
  const std::string name = is_loss ? "test loss" : "test accuracy";
  const std::optional<double> value = is_loss ? view.loss : view.accuracy;
  const std::string status = status_of(run);
  const double rounds = run.rounds.empty() ? 0 : run.rounds.back().round;
  if (status == "failed")
    return {Verdict::Band::missed, "The run failed before it could reach its band (" + band->name + ")."};
  if (status != "finished" && status != "stopped early") {
    return {Verdict::Band::open, "Not judged yet: round " + count(rounds) + " of " + text_at(run.experiment, "rounds") +
                                     " (" + name + " " + band->name + " after the last)."};
  }
  if (!value) return {Verdict::Band::open, "Not judged: no " + name + " was measured (" + band->name + ")."};
  const Unit unit = is_loss ? Unit::plain : Unit::percent;
  const std::string shown_value = name + " " + in_unit(*value, unit);
  if (*value >= band->low && *value <= band->high)
    return {Verdict::Band::met, "Inside the expected band: " + shown_value + ", " + band->name + "."};
  if (!std::isfinite(*value))
    return {Verdict::Band::missed, "Outside the expected band: " + name + " is not a number, " + band->name + "."};
  const bool below = *value < band->low;
  const double distance = below ? band->low - *value : *value - band->high;
  const std::string far = is_loss
                              ? number(distance, 2)
                              : number(distance * 100, 2) + (number(distance * 100, 2) == "1" ? " point" : " points");
  return {Verdict::Band::missed, "Outside the expected band, " + far + (below ? " below: " : " above: ") + shown_value +
                                     ", " + band->name + "."};
}

}  // namespace

bool hides_cohort(const RunData& run) {
  return !run.rounds.empty() && run.rounds.back().privacy && run.rounds.back().privacy->cohort_is_secret;
}

std::string status_of(const RunData& run) {
  std::string status = text_at(run.run, "status");
  std::replace(status.begin(), status.end(), '_', ' ');
  return status.empty() ? "not ended" : status;
}

std::optional<Band> expected_band(const RunData& run, const std::string& metric) {
  const auto low = number_at(run.experiment, "expect.low"), high = number_at(run.experiment, "expect.high");
  if (!low || !high || *low > *high || text_at(run.experiment, "expect.metric") != metric) return std::nullopt;
  if (metric != "accuracy" && metric != "loss") return std::nullopt;
  const Unit unit = metric == "loss" ? Unit::plain : Unit::percent;
  return Band{*low, *high, "expected " + in_unit(*low, unit) + " to " + in_unit(*high, unit)};
}

const RoundReport* last_with(const RunData& run, std::vector<double> RoundReport::*list) {
  for (auto report = run.rounds.rbegin(); report != run.rounds.rend(); ++report) {
    if (!((*report).*list).empty()) return &*report;
  }
  return nullptr;
}

std::vector<double> client_accuracies(const RoundReport& report) {
  std::vector<double> values;
  for (const double value : report.client_accuracy) {
    if (drawable(value)) values.push_back(value);
  }
  std::sort(values.begin(), values.end());
  return values;
}

std::vector<View> make_views(const std::vector<RunData>& runs) {
  const auto name_of = [](const RunData& run) {
    const std::string name = text_at(run.experiment, "name");
    return shortened(name.empty() ? folder_name(run) : name, kLabelLength);
  };
  std::map<std::string, int> names, with_folder;
  const auto long_name_of = [&](const RunData& run) {
    return name_of(run) + " (" + shortened(folder_name(run), kLabelLength) + ")";
  };
  for (const RunData& run : runs) ++names[name_of(run)], ++with_folder[long_name_of(run)];
  std::vector<View> views;
  for (const RunData& run : runs) {
    View view;
    view.data = &run;
    view.look = look_of(views.size());
    view.label = name_of(run);
    if (names[view.label] > 1) view.label = long_name_of(run);
    if (with_folder[view.label] > 1) view.label += " #" + std::to_string(views.size() + 1);
    view.accuracy = number_at(run.run, "accuracy");
    view.loss = number_at(run.run, "loss");
    for (auto report = run.rounds.rbegin(); report != run.rounds.rend() && (!view.accuracy || !view.loss); ++report) {
      if (!view.accuracy) view.accuracy = report->accuracy;
      if (!view.loss) view.loss = report->loss;
    }
    view.verdict = judge(run, view);
    views.push_back(std::move(view));
  }
  return views;
}

std::string section(const std::string& id, const std::string& title, const std::string& content) {
  return content.empty() ? ""
                         : "<section id=\"" + id + "\"><h2>" + escape(title) + "</h2>\n" + content + "</section>\n";
}

std::string grid(const std::string& figures) {
  return figures.empty() ? "" : "<div class=\"charts\">\n" + figures + "</div>\n";
}

std::string details_table(const std::string& summary, const std::vector<std::string>& header,
                          const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<details><summary>" + escape(summary) +
                    "</summary><div class=\"scroll\" tabindex=\"0\"><table class=\"data\"><thead><tr>";
  for (const std::string& cell : header) out += "<th scope=\"col\">" + escape(cell) + "</th>";
  out += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += "<td>" + escape(cell) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div></details>\n";
}

}  // namespace fl::report
