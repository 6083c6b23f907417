#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "simulations/cli/report_bars.h"
#include "simulations/cli/report_view.h"

// The sections made of words and tables: what ran, how it ended, how the runs differ, and the raw numbers.
namespace fl::report {
namespace {

constexpr std::size_t kRowLimit = 1000;        // rows of all round tables together
constexpr std::size_t kDifferenceLimit = 200;  // configuration paths shown

std::string run_text(const View& view, const char* path) { return text_at(view.data->run, path); }
std::string setting(const View& view, const char* path) { return text_at(view.data->experiment, path); }

std::string run_number(const View& view, const char* path, Unit unit) {
  const auto value = number_at(view.data->run, path);
  return value ? in_unit(*value, unit) : "";
}

std::string rounds_of(const View& view) {
  const double done =
      number_at(view.data->run, "rounds").value_or(view.data->rounds.empty() ? 0 : view.data->rounds.back().round);
  const auto planned = number_at(view.data->experiment, "rounds");
  return planned && *planned != done ? count(done) + " of " + count(*planned) : count(done);
}

/// From run.json, or while it is not there the sum over rounds.
std::string total(const View& view, const char* path, Unit unit,
                  const std::function<double(const RoundReport&)>& part) {
  if (number_at(view.data->run, path)) return run_number(view, path, unit);
  if (unit == Unit::bytes && hides_cohort(*view.data)) return "";
  double sum = 0;
  for (const RoundReport& report : view.data->rounds) sum += part(report);
  return view.data->rounds.empty() ? "" : in_unit(sum, unit);
}

std::string seconds_of(const View& view) {
  return total(view, "seconds", Unit::seconds,
               [](const RoundReport& r) { return r.wall_seconds + r.wall_seconds_evaluation_alone; });
}

std::string hash_markup(const View& view) {
  const std::string hash = run_text(view, "model_sha256");
  return hash.empty() ? "" : "<code title=\"" + escape(hash) + "\">" + escape(hash.substr(0, 12)) + "</code>";
}

std::string band_markup(const View& view) {
  const Verdict& verdict = view.verdict;
  if (verdict.band == Verdict::Band::none) return "";
  const bool met = verdict.band == Verdict::Band::met, missed = verdict.band == Verdict::Band::missed;
  std::string out = std::string("<p class=\"") +
                    (met      ? "met"
                     : missed ? "missed"
                              : "open") +
                    "\"><span class=\"badge\">" +
                    (met      ? "✓ band met"
                     : missed ? "✗ band missed"
                              : "… band open") +
                    "</span>" + escape(verdict.text) + "</p>";
  const std::string source = setting(view, "expect.source");
  return source.empty() ? out : out + "<p class=\"source\">Where the band comes from: " + escape(source) + "</p>";
}

std::string verdict_line(const View& view) {
  std::string out =
      view.accuracy ? "<strong>" + percent(*view.accuracy) + "</strong> test accuracy" : "No test accuracy";
  const std::string rounds = rounds_of(view), seconds = seconds_of(view);
  out += " after " + rounds + (rounds == "1" ? " round" : " rounds");
  if (!seconds.empty()) out += " in " + seconds;
  return out + " (" + escape(status_of(*view.data)) + ").";
}

/// Runs that ended with the same bits, in words.
std::string same_models(const std::vector<View>& views) {
  std::map<std::string, std::vector<std::string>> labels;
  for (const View& view : views) {
    if (!run_text(view, "model_sha256").empty()) labels[run_text(view, "model_sha256")].push_back(view.label);
  }
  std::string out;
  for (const auto& [hash, group] : labels) {
    if (group.size() < 2) continue;
    std::string names;
    for (std::size_t i = 0; i < group.size(); ++i)
      names += (i == 0 ? "" : i + 1 == group.size() ? " and " : ", ") + escape(group[i]);
    out += "<p>" + names + " ended with the same model, bit for bit.</p>";
  }
  return out;
}

std::string tile(const std::string& name, const std::string& markup) {
  return markup.empty() ? "" : "<div><dt>" + name + "</dt><dd>" + markup + "</dd></div>";
}

/// Rows of cells that are markup already; a row without any content is left out.
std::string table_row(const std::string& name, const std::vector<std::string>& cells) {
  if (std::all_of(cells.begin(), cells.end(), [](const std::string& cell) { return cell.empty(); })) return "";
  std::string out = "<tr><th scope=\"row\">" + name + "</th>";
  for (const std::string& cell : cells) out += "<td>" + (cell.empty() ? "–" : cell) + "</td>";
  return out + "</tr>\n";
}

std::string table_head(const std::string& corner, const std::vector<View>& views) {
  std::string out = "<div class=\"scroll\" tabindex=\"0\"><table class=\"compared\"><thead><tr><td>" + corner + "</td>";
  for (const View& view : views) out += "<th scope=\"col\">" + line_key(view.label, view.look) + "</th>";
  return out + "</tr></thead><tbody>\n";
}

/// "name, option value, option value": what a component's JSON says.
std::string component(const View& view, const char* path) {
  const nlohmann::json* value = find(view.data->experiment, path);
  if (value == nullptr || !value->is_object()) return "";
  std::string out = escape(text_at(*value, "name"));
  for (const auto& [key, option] : value->items()) {
    if (key == "name" || option.is_null()) continue;
    out += (out.empty() ? "" : ", ") + escape(key) + " " +
           escape(shortened(option.is_string() ? option.get<std::string>() : dump(option), 60));
  }
  return out;
}

std::string best_accuracy(const View& view) {
  const RoundReport* best = nullptr;
  for (const RoundReport& report : view.data->rounds) {
    if (report.accuracy && drawable(*report.accuracy) && (best == nullptr || *report.accuracy > *best->accuracy))
      best = &report;
  }
  return best == nullptr ? "" : percent(*best->accuracy) + " (round " + count(best->round) + ")";
}

void flatten(const nlohmann::json& value, const std::string& path, std::map<std::string, std::string>& out) {
  if (value.is_structured() && !value.empty()) {
    for (const auto& [key, member] : value.items()) flatten(member, path.empty() ? key : path + "." + key, out);
  } else {
    out[path] = dump(value);
  }
}

std::vector<std::string> round_row(const RoundReport& report) {
  const auto optional = [](const std::optional<double>& value) { return value ? number(*value, 6) : ""; };
  return {count(report.round),
          optional(report.accuracy),
          optional(report.loss),
          number(report.training_loss, 6),
          number(report.update_norm, 6),
          std::to_string(report.examples),
          std::to_string(report.cohort.size()),
          std::to_string(report.count(Outcome::accepted)),
          std::to_string(report.bytes_up),
          std::to_string(report.bytes_down),
          number(report.wall_seconds, 4),
          number(report.wall_seconds_evaluation, 4),
          number(report.virtual_seconds, 6),
          report.abandoned ? "yes" : ""};
}

}  // namespace

std::string header_section(const std::vector<View>& views) {
  std::string out = "<header><p class=\"eyebrow\">Tributary · report of " + count(static_cast<double>(views.size())) +
                    (views.size() == 1 ? " run" : " runs") + "</p>";
  if (views.size() > 1) {
    out += "<h1>Comparison of " + count(static_cast<double>(views.size())) + " runs</h1>\n";
    for (const View& view : views) {
      out += "<div class=\"run\"><p><strong>" + line_key(view.label, view.look) + "</strong></p>";
      const std::string description = setting(view, "description");
      if (!description.empty()) out += "<p>" + escape(description) + "</p>";
      out += "<p>" + verdict_line(view) + "</p>" + band_markup(view) + "</div>\n";
    }
    return out + same_models(views) + "</header>\n";
  }
  const View& view = views[0];
  out += "<h1>" + escape(view.label) + "</h1>";
  const std::string description = setting(view, "description");
  if (!description.empty()) out += "<p class=\"lead\">" + escape(description) + "</p>";
  out += "<p>" + verdict_line(view) + "</p>" + band_markup(view) + "\n<dl class=\"tiles\">";
  out += tile("Test accuracy", view.accuracy ? percent(*view.accuracy) : "") +
         tile("Test loss", view.loss ? number(*view.loss) : "") + tile("Rounds", rounds_of(view)) +
         tile("Time", seconds_of(view)) +
         tile("Traffic", total(view, "", Unit::bytes,
                               [](const RoundReport& r) {
                                 return static_cast<double>(r.bytes_up) + static_cast<double>(r.bytes_down);
                               })) +
         tile("Model", hash_markup(view));
  return out + "</dl></header>\n";
}

std::string numbers_section(const std::vector<View>& views) {
  using Cell = std::function<std::string(const View&)>;
  const auto from_run = [](const char* path, Unit unit) {
    return [=](const View& view) { return run_number(view, path, unit); };
  };
  const auto from_rounds = [](const char* path, std::uint64_t RoundReport::*member) {
    return [=](const View& view) {
      return total(view, path, Unit::bytes, [=](const RoundReport& r) { return static_cast<double>(r.*member); });
    };
  };
  const auto parts = [](const char* path) { return [=](const View& view) { return component(view, path); }; };
  const auto seconds_in_simulation = [](const View& view) {
    const double value = view.data->rounds.empty() ? 0 : view.data->rounds.back().virtual_seconds;
    return value > 0 ? duration(value) : "";
  };
  const auto expected = [](const View& view) {
    const auto band = expected_band(*view.data, setting(view, "expect.metric"));
    return band ? escape(setting(view, "expect.metric")) + ", " + band->name : "";
  };
  const std::vector<std::pair<const char*, Cell>> rows = {
      {"Status", [](const View& view) { return escape(status_of(*view.data)); }},
      {"Test accuracy", [](const View& view) { return view.accuracy ? percent(*view.accuracy) : ""; }},
      {"Best test accuracy", best_accuracy},
      {"Test loss", [](const View& view) { return view.loss ? number(*view.loss) : ""; }},
      {"Band", expected},
      {"Rounds", rounds_of},
      {"Time", seconds_of},
      {"Time in the simulation", seconds_in_simulation},
      {"Examples trained a second", from_run("train_samples_per_s", Unit::count)},
      {"Client rounds a second", from_run("client_rounds_per_s", Unit::plain)},
      {"Peak memory", from_run("peak_rss_bytes", Unit::bytes)},
      {"From clients", from_rounds("bytes_up", &RoundReport::bytes_up)},
      {"To clients", from_rounds("bytes_down", &RoundReport::bytes_down)},
      {"Model hash (SHA-256)", hash_markup},
      {"Parameters", from_run("parameters", Unit::count)},
      {"Model", parts("model")},
      {"Data", parts("data")},
      {"Partition", parts("partition")},
      {"Trainer", parts("trainer")},
      {"Strategy", parts("strategy")},
      {"Sampler", parts("sampler")},
      {"Codec", parts("codec")},
      {"Cohort", [](const View& view) { return escape(setting(view, "round.cohort")); }},
      {"Seed", [](const View& view) { return escape(setting(view, "seed")); }},
      {"Workers", from_run("workers", Unit::count)},
      {"Tributary", [](const View& view) { return escape(run_text(view, "tributary_version")); }},
      {"LibTorch", [](const View& view) { return escape(run_text(view, "torch_version")); }},
      {"Folder", [](const View& view) { return "<code>" + escape(view.data->folder) + "</code>"; }}};
  std::string out = views.size() > 1 ? table_head("", views) : "<div class=\"scroll\" tabindex=\"0\"><table><tbody>\n";
  for (const auto& [name, cell] : rows) {
    std::vector<std::string> cells;
    for (const View& view : views) cells.push_back(cell(view));
    out += table_row(name, cells);
  }
  return section("numbers", "Numbers", out + "</tbody></table></div>\n");
}

std::string differences_section(const std::vector<View>& views) {
  if (views.size() < 2) return "";
  std::vector<std::map<std::string, std::string>> settings(views.size());
  std::set<std::string> paths;
  for (std::size_t v = 0; v < views.size(); ++v) {
    flatten(views[v].data->experiment, "", settings[v]);
    for (const auto& [path, value] : settings[v]) paths.insert(path);
  }
  std::string rows;
  std::size_t differing = 0;
  for (const std::string& path : paths) {
    std::vector<std::string> cells;
    bool same = true;
    for (const auto& run : settings) {
      const auto value = run.find(path);
      const std::string text = value == run.end() ? "" : value->second;
      cells.push_back(text.empty() ? ""
                                   : "<code title=\"" + escape(text) + "\">" + escape(shortened(text, 80)) + "</code>");
      same = same && cells.back() == cells.front();
    }
    if (!same && differing++ < kDifferenceLimit) rows += table_row("<code>" + escape(path) + "</code>", cells);
  }
  if (differing == 0) return section("differences", "Differences", "<p>The experiments are the same.</p>\n");
  std::string out = table_head("JSON path", views) + rows + "</tbody></table></div>\n";
  if (differing > kDifferenceLimit)
    out += "<p class=\"note\">And " + count(static_cast<double>(differing - kDifferenceLimit)) + " more paths.</p>\n";
  return section("differences", "Differences", out);
}

std::string rounds_section(const std::vector<View>& views) {
  const std::vector<std::string> header = {"round",    "accuracy",     "loss",        "training loss", "update norm",
                                           "examples", "cohort",       "accepted",    "bytes up",      "bytes down",
                                           "seconds",  "evaluation s", "simulated s", "abandoned"};
  std::string out;
  for (const View& view : views) {
    const auto& rounds = view.data->rounds;
    if (rounds.empty()) continue;
    const std::size_t limit = std::max<std::size_t>(kRowLimit / views.size(), 10);
    const std::size_t every = (rounds.size() + limit - 1) / limit;
    std::vector<std::vector<std::string>> rows;
    for (std::size_t i = 0; i < rounds.size(); ++i) {
      if (i % every == 0 || i + 1 == rounds.size()) rows.push_back(round_row(rounds[i]));
    }
    std::string summary = views.size() == 1 ? "Rounds as a table" : "Rounds of " + view.label;
    if (every > 1) summary += " (one in " + count(static_cast<double>(every)) + "; all are in metrics.jsonl)";
    out += details_table(summary, header, rows);
  }
  return section("rounds", "Raw numbers", out);
}

std::string experiments_section(const std::vector<View>& views) {
  std::string out;
  for (const View& view : views) {
    out += "<details><summary>" +
           (views.size() == 1 ? "Resolved experiment" : "Resolved experiment of " + escape(view.label)) +
           "</summary><pre tabindex=\"0\">" + escape(dump(view.data->experiment, 2)) + "</pre></details>\n";
  }
  return section("experiments", views.size() == 1 ? "Experiment" : "Experiments", out);
}

}  // namespace fl::report
