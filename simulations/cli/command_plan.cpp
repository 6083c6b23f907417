#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>

#include "aggregator/engine/privacy_guard.h"
#include "aggregator/engine/secure_setup.h"
#include "client/session.h"
#include "client/trainer/trainer.h"
#include "fl_core/codec/codec.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/batches.h"
#include "fl_core/ml/torch_runtime.h"
#include "privacy/secagg/cost.h"
#include "simulations/scratch_folder.h"
#include "simulations/cli/command.h"
#include "simulations/cli/terminal.h"
#include "simulations/simulation.h"

namespace fl::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMeasureSeconds = 1.0;
constexpr std::size_t kSizesLookedAt = 1000;
constexpr std::size_t kEvaluationExamples = 1000;
/// Program, LibTorch and its libraries before the first model (measured with LibTorch 1.13: 165 MB).
constexpr double kProgramBytes = 165e6;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

struct Speed {
  double training_examples_per_s = 0;    ///< one worker
  double evaluation_examples_per_s = 0;  ///< one worker
};

/// Trains client 0 over and over for about a second, and evaluates for a part of one.
Speed measure(const Prepared& prepared) {
  limit_threads_of_this_worker();
  const Experiment& e = prepared.experiment;
  const auto model = prepared.devices->make_model(*prepared.model, static_cast<std::uint64_t>(e.seed));
  const auto trainer = trainers().create(e.trainer, "trainer");
  const std::vector<float> global(model->weights().begin(), model->weights().end());
  auto shard = prepared.partition->shard(0);
  // A few batches are enough, however large the client is.
  const auto few = static_cast<std::size_t>(trainer->batch_size()) * 20;
  if (shard.size() > few) shard.resize(few);
  std::int64_t examples = 0;
  const auto train = [&] {
    std::copy(global.begin(), global.end(), model->weights().begin());
    const TrainingJob job{*model, global, *prepared.data.train, shard, static_cast<std::uint64_t>(e.seed), 1, 0, stop_requested};
    examples += trainer->fit(job).metrics.examples;
  };
  train();
  examples = 0;
  Speed speed;
  auto start = Clock::now();
  do train();
  while (seconds_since(start) < kMeasureSeconds);
  speed.training_examples_per_s = static_cast<double>(examples) / seconds_since(start);

  std::vector<std::uint32_t> test(std::min(kEvaluationExamples, prepared.data.test->size()));
  std::iota(test.begin(), test.end(), 0U);
  start = Clock::now();
  evaluate_examples(*model, *prepared.data.test, test, kEvaluationBatch);
  speed.evaluation_examples_per_s = static_cast<double>(test.size()) / seconds_since(start);
  return speed;
}

/// What the run would work with, privacy promise included; nothing without the section.
std::optional<SecureSetup> secure_setup(const Prepared& prepared, const SharedLayout& layout, std::uint64_t selected) {
  const Experiment& e = prepared.experiment;
  if (!e.secure_aggregation) return std::nullopt;
  const std::uint64_t clients = prepared.partition->clients();
  if (!e.privacy) {
    const std::uint64_t most = samplers().create(e.sampler, "sampler")->max_cohort(clients, static_cast<double>(selected));
    return secure_setup_of(e, nullptr, most, layout->size());
  }
  const ScratchFolder scratch("fl-plan");
  SecureNoiseKeys keys;
  RunFolder folder(scratch / "run", RunFolderMode::create);
  const PrivacyGuard guard(PrivacyGuardParts{e, folder, keys, layout, clients});
  return secure_setup_of(e, &guard.promise(), guard.promise().setting().max_cohort, layout->size());
}

/// "20 % of 4 clients are none: …" for a rate that comes to nobody in a cohort of this size.
nlohmann::json warnings(const SecAggPlan& protocol, const SecAggCost& cost) {
  nlohmann::json texts = nlohmann::json::array();
  const auto none = [&](double rate) { return human_number(rate * 100) + " % of " + std::to_string(cost.clients) + " clients are none: "; };
  if (cost.dropouts() == 0) {
    const bool by_rate = whole_clients(protocol.dropout_rate, cost.clients) == 0;
    texts.push_back((by_rate ? none(protocol.dropout_rate) : std::to_string(cost.least_survivors) + " of " + std::to_string(cost.clients) + " clients have to be left: ") +
                    "one drop-out after training abandons the round; " +
                    (by_rate ? "raise secure_aggregation.dropout_rate or round.cohort" : "raise round.cohort, or lower secure_aggregation.minimum_survivors or round.minimum_updates"));
  }
  if (cost.adversaries == 0) {
    texts.push_back(none(protocol.adversary_rate) + "nothing is promised once one client works with the server; raise secure_aggregation.adversary_rate or round.cohort");
  }
  return texts;
}

/// One round; null without secure aggregation.
nlohmann::json describe_secure(const std::optional<SecureSetup>& setup, std::uint64_t cohort) {
  if (!setup) return nullptr;
  const SecAggCost cost = secagg_cost(setup->protocol, static_cast<std::uint32_t>(cohort));
  return {{"clients", cost.clients},
          {"neighbours", cost.degree},
          {"threshold", cost.threshold},
          {"least_survivors", cost.least_survivors},
          {"dropouts", cost.dropouts()},
          {"adversaries", cost.adversaries},
          {"server", setup->protocol.server == ServerModel::curious ? "curious" : "semi_malicious"},
          {"value_bits", setup->protocol.bits},
          {"values", setup->protocol.length},
          {"bytes_up_per_client", cost.bytes_up()},
          {"bytes_down_per_client", cost.bytes_down()},
          {"vector_bytes", cost.steps[2].up},
          {"client_seconds", cost.client_seconds},
          {"server_seconds", cost.server_seconds},
          {"server_seconds_at_worst", cost.server_seconds_at_worst},
          {"warnings", warnings(setup->protocol, cost)}};
}

nlohmann::json plan(const Prepared& prepared, std::size_t workers) {
  const Experiment& e = prepared.experiment;
  const ModelCost cost = prepared.model->cost();
  const auto trainer = trainers().create(e.trainer, "trainer");
  const auto codec = codecs().create(e.codec, "codec");
  const SharedLayout layout = prepared.model->make(0)->layout();
  const auto floats = static_cast<double>(layout->size());
  const std::uint64_t clients = prepared.partition->clients();
  const std::uint64_t asked = std::min(e.round.selected(), clients);
  // Before the measurement: it may refuse the experiment.
  const nlohmann::json secure = describe_secure(secure_setup(prepared, layout, asked), std::min(static_cast<std::uint64_t>(e.round.cohort), clients));
  const Speed speed = measure(prepared);

  // Mean work of a client, over all clients or a spread sample of them.
  const std::uint64_t stride = std::max<std::uint64_t>(1, clients / kSizesLookedAt);
  double examples = 0;
  double looked_at = 0;
  for (std::uint64_t client = 0; client < clients; client += stride, ++looked_at) {
    examples += static_cast<double>(trainer->examples_for(training_size(prepared.partition->shard_size(client), e.evaluation.client_holdout)));
  }
  const auto selected = static_cast<double>(asked);
  const double round_examples = examples / looked_at * selected;
  const auto rounds = static_cast<double>(e.rounds);
  const double evaluations = e.evaluation.every == 0 ? 1 : std::ceil(rounds / static_cast<double>(e.evaluation.every));
  const auto busy = static_cast<double>(std::min<std::uint64_t>(workers, asked));
  const double training_s = rounds * round_examples / speed.training_examples_per_s / std::max(1.0, busy);
  const double evaluation_s = evaluations * static_cast<double>(prepared.data.test->size()) / speed.evaluation_examples_per_s / static_cast<double>(workers);
  const double batch = static_cast<double>(std::max<std::int64_t>(trainer->batch_size(), static_cast<std::int64_t>(kEvaluationBatch)));
  const double worker_bytes = floats * 4 * 5 + static_cast<double>(cost.activation_bytes) * batch;
  double bytes_up = selected * static_cast<double>(codec->max_bytes(layout->size()));
  double bytes_down = selected * floats * 4;
  double secure_s = 0;
  double secure_bytes = 0;
  if (!secure.is_null()) {
    const auto number = [&](const char* key) { return secure.at(key).get<double>(); };
    bytes_up = selected * number("bytes_up_per_client");  // the masked vector goes in the update's place
    bytes_down += selected * number("bytes_down_per_client");
    secure_s = rounds * (selected * number("client_seconds") / std::max(1.0, busy) + number("server_seconds"));
    // Every client keeps its update until it is masked; a worker masks one at a time; the server has a sum, masked and decoded.
    secure_bytes = floats * (4 * selected + 16 * static_cast<double>(workers) + 16);
  }
  const auto data_bytes = static_cast<double>(prepared.data.train->memory_bytes() + prepared.data.test->memory_bytes());
  return {{"parameters", cost.parameters},
          {"device", e.device},
          {"forward_flops_per_example", cost.forward_flops},
          {"training_flops_per_example", cost.training_flops},
          {"training_flops", rounds * round_examples * static_cast<double>(cost.training_flops)},
          {"clients", clients},
          {"workers", workers},
          {"examples_per_round", round_examples},
          {"bytes_down_per_round", bytes_down},
          {"bytes_up_per_round", bytes_up},
          {"memory_bytes", kProgramBytes + data_bytes + static_cast<double>(workers) * worker_bytes + floats * 4 * 8 + secure_bytes},
          {"data_bytes", data_bytes},
          {"worker_bytes", worker_bytes},
          {"training_examples_per_s_per_worker", speed.training_examples_per_s},
          {"evaluation_examples_per_s_per_worker", speed.evaluation_examples_per_s},
          {"training_seconds", training_s},
          {"evaluation_seconds", evaluation_s},
          {"secure_aggregation", secure},
          {"secure_aggregation_seconds", secure_s},
          {"seconds", training_s + evaluation_s + secure_s}};
}

void print_line(const char* what, const std::string& value) { std::printf("%-22s %s\n", what, value.c_str()); }

/// Protocol steps take milliseconds.
std::string short_seconds(double seconds) { return seconds < 0.1 ? human_number(seconds * 1000, 2) + " ms" : human_seconds(seconds); }

void print_secure(const nlohmann::json& p) {
  const auto count = [&](const char* key) { return human_count(p.at(key).get<std::int64_t>()); };
  const auto bytes = [&](const char* key) { return human_bytes(p.at(key).get<double>()); };
  const auto seconds = [&](const char* key) { return short_seconds(p.at(key).get<double>()); };
  print_line("secure aggregation", count("clients") + " clients, each with " + count("neighbours") + " neighbours of which " + count("threshold") + " rebuild a secret");
  const auto some = [&](const char* key, const char* what) { return count(key) + " " + what + (p.at(key) == 1 ? "" : "s"); };
  print_line("  stands", some("dropouts", "drop-out") + " after training, " + some("adversaries", "client") + " on the side of " +
                             (p.at("server") == "curious" ? "a server that only reads" : "the server"));
  print_line("  a client", bytes("bytes_up_per_client") + " up (" + count("value_bits") + " bits a value: " + bytes("vector_bytes") + "), " + bytes("bytes_down_per_client") +
                               " down, " + seconds("client_seconds"));
  print_line("  the server", seconds("server_seconds") + " a round, " + seconds("server_seconds_at_worst") + " with all those drop-outs (estimates for one core)");
  for (const auto& warning : p.at("warnings")) print_line("  warning", warning.get<std::string>());
}

void print_plan(const nlohmann::json& p, std::int64_t rounds) {
  const auto number = [&](const char* key) { return p.at(key).get<double>(); };
  print_line("parameters", human_count(p.at("parameters").get<std::int64_t>()));
  const auto forward = p.at("forward_flops_per_example").get<std::int64_t>();
  print_line("FLOPs per example", forward == 0 ? "unknown (a module of your own)"
                                               : human_count(forward) + " forward, " +
                                                     human_count(p.at("training_flops_per_example").get<std::int64_t>()) + " training");
  print_line("device", p.at("device").get<std::string>());
  print_line("clients", human_count(p.at("clients").get<std::int64_t>()));
  print_line("examples a round", human_count(static_cast<std::int64_t>(number("examples_per_round"))));
  print_line("traffic a round", human_bytes(number("bytes_down_per_round")) + " down, " + human_bytes(number("bytes_up_per_round")) + " up");
  const nlohmann::json& secure = p.at("secure_aggregation");
  if (!secure.is_null()) print_secure(secure);
  print_line("memory", human_bytes(number("memory_bytes")) + " (data " + human_bytes(number("data_bytes")) + ", each of " +
                           p.at("workers").dump() + " workers " + human_bytes(number("worker_bytes")) + ")");
  print_line("measured, per worker", human_count(static_cast<std::int64_t>(number("training_examples_per_s_per_worker"))) + " training examples/s, " +
                                         human_count(static_cast<std::int64_t>(number("evaluation_examples_per_s_per_worker"))) + " evaluated/s");
  print_line("time", human_seconds(number("seconds")) + " for " + human_count(rounds) + " rounds (training " + human_seconds(number("training_seconds")) +
                         ", evaluation " + human_seconds(number("evaluation_seconds")) +
                         (secure.is_null() ? "" : ", secure aggregation " + human_seconds(number("secure_aggregation_seconds"))) + ")");
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("plan", "What an experiment will cost, from a measurement of about a second");
  struct Arguments {
    std::string file;
    std::vector<std::string> settings;
    std::size_t workers = 0;
    bool json = false;
  };
  auto arguments = std::make_shared<Arguments>();
  command->add_option("FILE", arguments->file, "Experiment in JSON")->required();
  add_set_option(*command, arguments->settings);
  add_workers_option(*command, arguments->workers);
  command->add_flag("--json", arguments->json, "One JSON object");
  command->callback([arguments, &action] {
    action = [arguments] {
      watch_signals();
      const Prepared prepared = prepare_from(load_experiment(arguments->file, arguments->settings), arguments->file);
      const nlohmann::json costs = plan(prepared, arguments->workers);
      if (arguments->json) {
        std::printf("%s\n", costs.dump().c_str());
      } else {
        print_plan(costs, prepared.experiment.rounds);
      }
      return ExitCode::ok;
    };
  });
}

}  // namespace fl::cli
