#include "fl_core/round/types.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

using nlohmann::json;

constexpr std::array<const char*, kOutcomes> kOutcomeNames = {
    "accepted", "left", "late", "failed", "malformed", "wrong_round", "wrong_model", "not_finite", "out_of_bound", "not_summed"};

json number_or_null(double value) { return std::isfinite(value) ? json(value) : json(nullptr); }

json numbers_or_nulls(const std::vector<double>& values) {
  json list = json::array();
  for (const double value : values) list.push_back(number_or_null(value));
  return list;
}

std::string path_of(const char* key) { return join_path("report", key); }

const json& required(const json& report, const char* key) {
  const auto place = report.find(key);
  if (place == report.end()) bad_value(path_of(key), nullptr, "a value: the key is missing");
  return *place;
}

double to_double(const json& value, const std::string& path) {
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!value.is_number()) bad_value(path, value, "a number, or null for one that is not finite");
  return value.get<double>();
}

template <class Integer>
Integer to_integer(const json& value, const std::string& path) {
  const bool fits = value.is_number_unsigned()
                        ? std::in_range<Integer>(value.get<std::uint64_t>())
                        : value.is_number_integer() && std::in_range<Integer>(value.get<std::int64_t>());
  if (!fits) {
    bad_value(path, value, "an integer from " + std::to_string(std::numeric_limits<Integer>::min()) + " to " +
                               std::to_string(std::numeric_limits<Integer>::max()));
  }
  return value.get<Integer>();
}

template <class Integer>
void read_integer(const json& report, const char* key, Integer& out) {
  out = to_integer<Integer>(required(report, key), path_of(key));
}

void read_double(const json& report, const char* key, double& out) {
  out = to_double(required(report, key), path_of(key));
}

void read_optional(const json& report, const char* key, std::optional<double>& out) {
  const auto place = report.find(key);
  if (place != report.end()) out = to_double(*place, path_of(key));
}

void read_list(const json& report, const char* key, std::vector<double>& out) {
  const auto place = report.find(key);
  if (place == report.end()) return;
  if (!place->is_array()) bad_value(path_of(key), *place, "a list of numbers");
  for (const json& value : *place) out.push_back(to_double(value, path_of(key)));
}

json describe_privacy(const PrivacyReport& privacy) {
  json object = {{"epsilon", number_or_null(privacy.epsilon)},
                 {"delta", privacy.delta},
                 {"clip_norm", privacy.clip_norm},
                 {"noise_stddev", privacy.noise_stddev},
                 {"private", privacy.is_private},
                 {"cohort_is_secret", privacy.cohort_is_secret}};
  if (privacy.epsilon_left) object["epsilon_left"] = number_or_null(*privacy.epsilon_left);
  if (privacy.clipped_fraction) object["clipped_fraction"] = number_or_null(*privacy.clipped_fraction);
  if (privacy.signal_to_noise) object["signal_to_noise"] = number_or_null(*privacy.signal_to_noise);
  return object;
}

bool read_flag(const json& object, const char* key) {
  const json& value = required(object, key);
  if (!value.is_boolean()) bad_value(path_of(key), value, "true or false");
  return value.get<bool>();
}

PrivacyReport read_privacy(const json& object) {
  if (!object.is_object()) bad_value(path_of("privacy"), object, "an object");
  PrivacyReport privacy;
  read_double(object, "epsilon", privacy.epsilon);
  if (std::isnan(privacy.epsilon)) privacy.epsilon = std::numeric_limits<double>::infinity();
  read_double(object, "delta", privacy.delta);
  read_double(object, "clip_norm", privacy.clip_norm);
  read_double(object, "noise_stddev", privacy.noise_stddev);
  read_optional(object, "epsilon_left", privacy.epsilon_left);
  read_optional(object, "clipped_fraction", privacy.clipped_fraction);
  read_optional(object, "signal_to_noise", privacy.signal_to_noise);
  privacy.is_private = read_flag(object, "private");
  privacy.cohort_is_secret = read_flag(object, "cohort_is_secret");
  return privacy;
}

std::vector<ClientOutcome> read_cohort(const json& report) {
  const json& cohort = required(report, "cohort");
  const bool lists = cohort.is_object() && cohort.contains("clients") && cohort.contains("outcomes") &&
                     cohort["clients"].is_array() && cohort["outcomes"].is_array() &&
                     cohort["clients"].size() == cohort["outcomes"].size();
  if (!lists) bad_value(path_of("cohort"), cohort, "two lists of one length, 'clients' and 'outcomes'");
  std::vector<ClientOutcome> members;
  for (std::size_t i = 0; i < cohort["clients"].size(); ++i) {
    const auto client = to_integer<ClientId>(cohort["clients"][i], path_of("cohort.clients"));
    const auto outcome = to_integer<std::uint8_t>(cohort["outcomes"][i], path_of("cohort.outcomes"));
    if (outcome >= kOutcomes) {
      bad_value(path_of("cohort.outcomes"), outcome, "a number below " + std::to_string(kOutcomes));
    }
    members.push_back({client, static_cast<Outcome>(outcome)});
  }
  return members;
}

}  // namespace

const char* outcome_name(Outcome outcome) {
  const auto index = static_cast<std::size_t>(outcome);
  FL_CHECK(index < kOutcomes, "outcome " + std::to_string(index) + " has no name");
  return kOutcomeNames[index];
}

std::size_t RoundReport::count(Outcome outcome) const {
  return static_cast<std::size_t>(std::count_if(
      cohort.begin(), cohort.end(), [outcome](const ClientOutcome& member) { return member.outcome == outcome; }));
}

RoundReport published(const RoundReport& report) {
  RoundReport open = report;
  if (!report.privacy || !report.privacy->cohort_is_secret) return open;
  open.cohort.clear();
  open.bytes_down = 0;
  open.bytes_up = 0;
  open.virtual_seconds = std::numeric_limits<double>::quiet_NaN();  // of simulated devices it is a function of who took part
  return open;
}

json to_json(const RoundReport& report) {
  json outcomes = json::object();
  json clients = json::array();
  json numbers = json::array();
  std::array<std::size_t, kOutcomes> counts{};
  for (const ClientOutcome& member : report.cohort) {
    ++counts.at(static_cast<std::size_t>(member.outcome));
    clients.push_back(member.client);
    numbers.push_back(static_cast<std::uint8_t>(member.outcome));
  }
  for (std::size_t i = 0; i < kOutcomes; ++i) {
    if (counts[i] != 0) outcomes[kOutcomeNames[i]] = counts[i];
  }
  json line = {{"round", report.round},
               {"model_version", report.model_version},
               {"abandoned", report.abandoned},
               {"outcomes", std::move(outcomes)},
               {"cohort", {{"clients", std::move(clients)}, {"outcomes", std::move(numbers)}}},
               {"bytes_down", report.bytes_down},
               {"bytes_up", report.bytes_up},
               {"examples", report.examples},
               {"steps", report.steps},
               {"training_loss", number_or_null(report.training_loss)},
               {"update_norm", number_or_null(report.update_norm)},
               {"virtual_seconds", number_or_null(report.virtual_seconds)},
               {"wall_seconds", number_or_null(report.wall_seconds)},
               {"wall_seconds_evaluation", number_or_null(report.wall_seconds_evaluation)},
               {"wall_seconds_evaluation_alone", number_or_null(report.wall_seconds_evaluation_alone)}};
  if (report.privacy) line["privacy"] = describe_privacy(*report.privacy);
  if (report.accuracy) line["accuracy"] = number_or_null(*report.accuracy);
  if (report.loss) line["loss"] = number_or_null(*report.loss);
  if (!report.class_accuracy.empty()) line["class_accuracy"] = numbers_or_nulls(report.class_accuracy);
  if (!report.client_accuracy.empty()) line["client_accuracy"] = numbers_or_nulls(report.client_accuracy);
  return line;
}

RoundReport report_from_json(const json& line) {
  if (!line.is_object()) bad_value("report", line, "an object");
  RoundReport report;
  read_integer(line, "round", report.round);
  read_integer(line, "model_version", report.model_version);
  report.abandoned = read_flag(line, "abandoned");
  report.cohort = read_cohort(line);
  read_integer(line, "bytes_down", report.bytes_down);
  read_integer(line, "bytes_up", report.bytes_up);
  read_integer(line, "examples", report.examples);
  read_integer(line, "steps", report.steps);
  read_double(line, "training_loss", report.training_loss);
  read_double(line, "update_norm", report.update_norm);
  read_double(line, "virtual_seconds", report.virtual_seconds);
  read_double(line, "wall_seconds", report.wall_seconds);
  read_double(line, "wall_seconds_evaluation", report.wall_seconds_evaluation);
  // In older runs nothing else went on during an evaluation.
  report.wall_seconds_evaluation_alone = report.wall_seconds_evaluation;
  if (line.contains("wall_seconds_evaluation_alone")) read_double(line, "wall_seconds_evaluation_alone", report.wall_seconds_evaluation_alone);
  if (line.contains("privacy")) report.privacy = read_privacy(line["privacy"]);
  read_optional(line, "accuracy", report.accuracy);
  read_optional(line, "loss", report.loss);
  read_list(line, "class_accuracy", report.class_accuracy);
  read_list(line, "client_accuracy", report.client_accuracy);
  return report;
}

}  // namespace fl
