#pragma once

#include <limits>
#include <string>

#include "simulations/cli/report.h"

namespace fl::test {

inline RoundReport round_of(std::uint32_t number, double accuracy, double loss) {
  RoundReport report;
  report.round = number;
  report.model_version = number;
  report.cohort = {{1, Outcome::accepted}, {4, Outcome::accepted}};
  report.bytes_up = 1000;
  report.bytes_down = 2000;
  report.examples = 1200;
  report.training_loss = loss;
  report.update_norm = 0.5;
  report.wall_seconds = 1.5;
  report.wall_seconds_evaluation = report.wall_seconds_evaluation_alone = 0.25;
  report.accuracy = accuracy;
  report.loss = loss;
  return report;
}

/// A run of two rounds without anything optional.
inline RunData small_run(const std::string& name = "small") {
  RunData run;
  run.folder = "runs/" + name;
  run.experiment = {{"name", name}, {"seed", 1}, {"rounds", 2}, {"trainer", {{"name", "sgd"}, {"learning_rate", 0.1}}}};
  run.rounds = {round_of(1, 0.5, 1.25), round_of(2, 0.75, 0.5)};
  return run;
}

/// A run that has something for every section.
inline RunData complete_run(const std::string& name = "complete") {
  RunData run = small_run(name);
  run.experiment["description"] = "Two rounds of everything";
  run.experiment["expect"] = {{"metric", "accuracy"}, {"low", 0.7}, {"high", 0.8}, {"source", "a paper"}};
  run.run = {{"status", "finished"},
             {"rounds", 2},
             {"accuracy", 0.75},
             {"loss", 0.5},
             {"seconds", 112},
             {"peak_rss_bytes", 412'000'000},
             {"model_sha256", std::string(60, 'a') + "1234"},
             {"bytes_up", 2000},
             {"bytes_down", 4000},
             {"parameters", 199210}};
  run.rounds[0].cohort = {{1, Outcome::accepted}, {4, Outcome::late}};
  run.rounds[1].class_accuracy = {0.25, 1.0};
  run.rounds[1].client_accuracy = {0.5, 0.6, 1.0};
  run.partition = {{"clients", 100},
                   {"shown", {0, 7}},
                   {"histogram", {{30, 10}, {0, 20}}},
                   {"sizes", {{"min", 20}, {"p10", 21}, {"median", 30}, {"p90", 39}, {"max", 40}}}};
  return run;
}

/// A run with a promise that hides who took part.
inline RunData private_run(const std::string& name = "private") {
  RunData run = small_run(name);
  run.run["privacy"] = {{"sentence", "epsilon 2.5 at delta 1e-05 for one client"}};
  for (RoundReport& round : run.rounds) {
    PrivacyReport privacy;
    privacy.epsilon = 1.25 * round.round;
    privacy.delta = 1e-5;
    privacy.clip_norm = 0.5;
    privacy.clipped_fraction = 0.4;
    privacy.signal_to_noise = 0.3;
    privacy.cohort_is_secret = true;
    round.privacy = privacy;
    round = published(round);
    round.training_loss = std::numeric_limits<double>::quiet_NaN();
  }
  return run;
}

}  // namespace fl::test
