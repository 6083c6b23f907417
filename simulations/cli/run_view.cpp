#include "simulations/cli/run_view.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "fl_core/config/experiment.h"
#include "fl_core/round/types.h"
#include "privacy/mechanism/promise.h"
#include "simulations/cli/command.h"
#include "simulations/cli/report.h"

namespace fl::cli {
namespace {

/// "expected accuracy 0.84–0.857: reached 0.848, inside", or empty without an expectation.
std::string verdict(const Experiment& experiment, const nlohmann::json& summary, bool& inside) {
  inside = true;
  if (!experiment.expect) return "";
  const Expectation& expect = *experiment.expect;
  const auto& value = summary.at(expect.metric);
  const double reached = value.is_number() ? value.get<double>() : std::nan("");
  inside = reached >= expect.low && reached <= expect.high;
  std::array<char, 200> text{};
  std::snprintf(text.data(), text.size(), "expected   %s from %.4g to %.4g: %s", expect.metric.c_str(), expect.low, expect.high,
                inside ? "reached" : "MISSED");
  return text.data();
}

void print_summary(const Experiment& experiment, const nlohmann::json& summary, const std::filesystem::path& folder) {
  const auto line = [](const char* what, const std::string& value) { std::printf("%-10s %s\n", what, value.c_str()); };
  const auto number = [&](const char* key) { return summary.at(key).is_number() ? summary.at(key).get<double>() : std::nan(""); };
  if (summary.at("accuracy").is_number()) line("accuracy", percent(number("accuracy")) + " on the test set, after round " + summary.at("rounds").dump());
  if (const auto& clients = summary.at("client_accuracy"); !clients.is_null()) {
    line("clients", percent(clients.at("mean").get<double>()) + " mean, " + percent(clients.at("p10").get<double>()) + " p10, " +
                        percent(clients.at("p90").get<double>()) + " p90 of " + clients.at("clients").dump() + " clients on their held-out examples");
  }
  bool inside = true;
  const std::string expected = verdict(experiment, summary, inside);
  if (!expected.empty()) std::printf("%s\n", expected.c_str());
  // Where noise hides who took part nobody says how many examples or bytes there were; under any promise devices do not say.
  const bool counted = number("train_samples_per_s") > 0;
  line("time", human_seconds(number("seconds")) + (counted ? ", " + human_count(std::llround(number("train_samples_per_s"))) + " training examples a second" : "") +
                   ", peak memory " + human_bytes(number("peak_rss_bytes")));
  if (const auto privacy = summary.find("privacy"); privacy != summary.end()) {
    line("privacy", privacy_sentence(*privacy));
    if (privacy->contains("epsilon_left")) {
      line("", human_number(privacy->at("epsilon_left").get<double>()) + " of epsilon " + human_number(privacy->at("budget_epsilon").get<double>(), 6) + " is left");
    }
  }
  if (number("bytes_up") > 0) line("traffic", human_bytes(number("bytes_up")) + " up, " + human_bytes(number("bytes_down")) + " down");
  line("model", summary.at("model_sha256").get<std::string>());
  line("folder", folder.string());
  line("report", (folder / "report.html").string());
}

}  // namespace

void Pace::add(const RoundReport& report) {
  ++seen_;
  seconds_ += report.wall_seconds + report.wall_seconds_evaluation_alone;
  last_ = report.round;
}

std::string Pace::text() const {
  if (seen_ == 0) return "";
  const double each = seconds_ / seen_;
  return human_seconds(each) + "/round, " + human_seconds(each * (rounds_ - last_)) + " left";
}

RunView::RunView(const Experiment& experiment, bool json, bool quiet)
    : rounds_(static_cast<std::uint32_t>(experiment.rounds)), json_(json), progress_(json || quiet), pace_(rounds_) {}

void RunView::arrival(std::uint32_t round, std::size_t answered, std::size_t asked) {
  const double done = round - 1 + static_cast<double>(answered) / static_cast<double>(asked);
  progress_.show(done, rounds_, line(round, std::to_string(answered) + "/" + std::to_string(asked) + " clients"), false);
}

void RunView::round(const RoundReport& report) {
  nlohmann::json shown = to_json(report);
  shown.erase("cohort");  // who did what is in metrics.jsonl; a line a round must stay short with large cohorts
  round(report, shown);
}

void RunView::round(const RoundReport& report, const nlohmann::json& shown) {
  pace_.add(report);
  if (report.accuracy) measured_ = percent(*report.accuracy) + " accuracy";
  if (report.privacy) spent_ = "epsilon " + human_number(report.privacy->epsilon);
  if (json_) {
    std::printf("%s\n", shown.dump().c_str());
    std::fflush(stdout);
  }
  const bool tenth = report.round == rounds_ || report.round % std::max(1U, rounds_ / 10) == 0;
  progress_.show(report.round, rounds_, line(report.round, report.abandoned ? "abandoned" : ""), tenth);
}

std::string RunView::line(std::uint32_t round, const std::string& more) const {
  std::string text = "round " + std::to_string(round) + "/" + std::to_string(rounds_);
  if (!measured_.empty()) text += "  " + measured_;
  if (!spent_.empty()) text += "  " + spent_;
  if (!pace_.text().empty()) text += "  " + pace_.text();
  if (!more.empty()) text += "  " + more;
  return text;
}

ExitCode show_result(const Experiment& experiment, const nlohmann::json& summary, const RunRequest& request) {
  write_file_atomically(request.folder / "report.html", render_report({read_run(request.folder)}));
  if (request.json) {
    std::printf("%s\n", summary.dump().c_str());
  } else if (!request.quiet) {
    print_summary(experiment, summary, request.folder);
  }
  bool inside = true;
  verdict(experiment, summary, inside);
  return request.check && !inside ? ExitCode::out_of_band : ExitCode::ok;
}

}  // namespace fl::cli
