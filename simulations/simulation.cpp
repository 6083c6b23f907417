#include "simulations/simulation.h"

#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "aggregator/engine/federation.h"
#include "client/batches.h"
#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/percentile.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/json_reader.h"
#include "simulations/in_process.h"

namespace fl {
namespace {

constexpr std::size_t kClientsInReport = 50;
constexpr std::uint64_t kSizesLookedAt = 10'000;

std::uint64_t seed_of(const Experiment& experiment) { return static_cast<std::uint64_t>(experiment.seed); }

/// Mean, p10 and p90 of the last per-client evaluation; null when there was none.
nlohmann::json describe_clients(const std::vector<double>& ascending) {
  if (ascending.empty()) return nullptr;
  const double mean = std::accumulate(ascending.begin(), ascending.end(), 0.0) / static_cast<double>(ascending.size());
  return {{"clients", ascending.size()}, {"mean", mean}, {"p10", percentile(ascending, 0.1)}, {"p90", percentile(ascending, 0.9)}};
}

/// Everything that lives as long as one run.
class Simulation {
 public:
  Simulation(const Prepared& prepared, const SimulationOptions& options)
      : prepared_(prepared),
        options_(options),
        folder_(options.folder, options.resume ? RunFolderMode::resume : RunFolderMode::create,
                to_json(prepared.experiment).dump(2) + "\n"),
        codec_(codecs().create(experiment().codec, "codec")),
        sampler_(samplers().create(experiment().sampler, "sampler")),
        initial_(prepared.model->make(seed_of(experiment()))),
        strategy_(make_strategy()),
        transport_(InProcessParts{experiment(), *prepared.partition, *prepared.data.train, *codec_, [this] { return make_worker(); }, options.should_stop},
                   options.workers),
        engine_(RoundParts{experiment(), transport_, *sampler_, *strategy_, *codec_, initial_->layout(), prepared.partition->clients(),
                           options.on_progress}) {
    note_facts();
  }

  nlohmann::json run() {
    ParameterVector start(initial_->layout());
    std::copy(initial_->weights().begin(), initial_->weights().end(), start.values().begin());
    Federation federation(FederationParts{experiment(), folder_, engine_, *strategy_, [this](const ParameterVector& global) { return evaluate(global); },
                                          options_.on_round, [this](Seconds time) { transport_.start_at(time); }, options_.should_stop},
                          std::move(start));
    try {
      federation.run();
    } catch (const Interrupted&) {
      write_summary(federation.totals(), "interrupted");
      throw Interrupted("interrupted after round " + std::to_string(federation.totals().rounds) + " of " + std::to_string(experiment().rounds) +
                        "; go on with: fl resume " + folder_.path().string());
    } catch (const TrainingError&) {
      write_summary(federation.totals(), "failed");
      throw;
    }
    return write_summary(federation.totals(), federation.totals().stopped_early ? "stopped_early" : "finished");
  }

 private:
  const Experiment& experiment() const { return prepared_.experiment; }

  Worker make_worker() {
    if (options_.worker_setup) options_.worker_setup();
    return {prepared_.model->make(seed_of(experiment())), trainers().create(experiment().trainer, "trainer")};
  }

  std::unique_ptr<Strategy> make_strategy() {
    StrategyContext context;
    context.layout = initial_->layout();
    context.max_updates = std::max<std::uint64_t>(1, sampler_->max_cohort(prepared_.partition->clients(), experiment().round.selected()));
    context.bound_bits = static_cast<int>(experiment().round.update_bound_bits);
    return strategies().create(experiment().strategy, "strategy", context);
  }

  /// A resumed run must have the same data and the same experiment, but for a number of rounds that may be raised.
  void note_facts() {
    check_fact("data_sha256", prepared_.data.train->fingerprint() + prepared_.data.test->fingerprint(),
               "data: the files have changed since this run began, so it cannot go on to the same bits; restore them, or start a new run");
    nlohmann::json without_rounds = to_json(experiment());
    without_rounds.erase("rounds");
    const std::string text = without_rounds.dump();
    check_fact("experiment_sha256", sha256_hex(std::as_bytes(std::span(text))),
               "experiment.json was changed since this run began; only 'rounds' may be: undo the change, or start a new run");
    if (options_.versions != nullptr) folder_.store().set_meta("versions", options_.versions->dump());
    write_file_atomically(folder_.path() / "partition.json", describe_partition(*prepared_.partition, *prepared_.data.train, kClientsInReport).dump() + "\n");
  }

  void check_fact(const std::string& key, const std::string& value, const char* complaint) {
    const auto known = folder_.store().meta(key);
    if (known && *known != value) throw ConfigError(complaint);
    if (!known) folder_.store().set_meta(key, value);
  }

  Evaluation evaluate(const ParameterVector& global) {
    const std::size_t size = prepared_.data.test->size();
    const std::size_t parts = (size + kEvaluationBatch - 1) / kEvaluationBatch;
    std::vector<Evaluation> sums(parts);
    transport_.for_each(parts, [&](Worker& worker, std::size_t i) {
      std::copy(global.values().begin(), global.values().end(), worker.model->weights().begin());
      std::vector<std::uint32_t> examples(std::min(kEvaluationBatch, size - i * kEvaluationBatch));
      std::iota(examples.begin(), examples.end(), static_cast<std::uint32_t>(i * kEvaluationBatch));
      sums[i] = evaluate_examples(*worker.model, *prepared_.data.test, examples, kEvaluationBatch);
    });
    Evaluation all;
    for (const Evaluation& one : sums) all.merge(one);
    return all;
  }

  nlohmann::json write_summary(const FederationTotals& totals, const std::string& status) {
    const auto rate = [&](double count) { return totals.seconds_training > 0 ? count / totals.seconds_training : 0; };
    const auto optional = [](const std::optional<double>& value) { return value && std::isfinite(*value) ? nlohmann::json(*value) : nlohmann::json(nullptr); };
    nlohmann::json run = {{"status", status},
                          {"rounds", totals.rounds},
                          {"accuracy", optional(totals.accuracy)},
                          {"loss", optional(totals.loss)},
                          {"client_accuracy", describe_clients(totals.client_accuracy)},
                          {"model_sha256", totals.model_sha256},
                          {"seconds", totals.seconds_training + totals.seconds_evaluation},
                          {"train_samples_per_s", rate(static_cast<double>(totals.examples))},
                          {"client_rounds_per_s", rate(static_cast<double>(totals.client_rounds))},
                          {"peak_rss_bytes", peak_rss_bytes()},
                          {"bytes_up", totals.bytes_up},
                          {"bytes_down", totals.bytes_down},
                          {"workers", options_.workers},
                          {"parameters", initial_->layout()->size()}};
    if (options_.versions != nullptr) run.update(*options_.versions);
    write_file_atomically(folder_.path() / "run.json", run.dump(2) + "\n");
    return run;
  }

  const Prepared& prepared_;
  const SimulationOptions& options_;
  RunFolder folder_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Model> initial_;
  std::unique_ptr<Strategy> strategy_;
  InProcess transport_;
  RoundEngine engine_;
};

}  // namespace

Prepared prepare(Experiment experiment) {
  Prepared prepared;
  const std::uint64_t seed = seed_of(experiment);
  prepared.data = data_sources().create(experiment.data, "data")->load(seed);
  const Dataset& train = *prepared.data.train;
  const Dataset& test = *prepared.data.test;
  if (train.shape().input != test.shape().input || train.shape().classes != test.shape().classes) {
    throw ConfigError("data: training and test examples differ in shape or in the number of classes");
  }
  prepared.partition = partitions().create(experiment.partition, "partition", PartitionContext{prepared.data.train, seed, "partition"});
  prepared.model = models().create(experiment.model, "model", ModelContext{train.shape(), "model"});
  const auto clients = static_cast<std::int64_t>(prepared.partition->clients());
  if (experiment.round.cohort > clients) {
    bad_value("round.cohort", experiment.round.cohort, "at most the number of clients (" + std::to_string(clients) + ")");
  }
  prepared.experiment = std::move(experiment);
  return prepared;
}

nlohmann::json run_simulation(const Prepared& prepared, const SimulationOptions& options) {
  Simulation simulation(prepared, options);
  return simulation.run();
}

nlohmann::json describe_partition(const Partition& partition, const Dataset& data, std::size_t shown) {
  const std::uint64_t clients = partition.clients();
  const auto labels = data.labels();
  nlohmann::json ids = nlohmann::json::array();
  nlohmann::json histogram = nlohmann::json::array();
  for (ClientId client = 0; client < std::min<std::uint64_t>(clients, shown); ++client) {
    std::vector<std::int64_t> counts(static_cast<std::size_t>(data.shape().classes));
    for (const std::uint32_t example : partition.shard(client)) ++counts[static_cast<std::size_t>(labels[example])];
    ids.push_back(client);
    histogram.push_back(counts);
  }
  std::vector<std::size_t> sizes;
  const std::uint64_t stride = (clients + kSizesLookedAt - 1) / kSizesLookedAt;
  for (ClientId client = 0; client < clients; client += stride) sizes.push_back(partition.shard_size(client));
  std::sort(sizes.begin(), sizes.end());
  return {{"clients", clients},
          {"shown", ids},
          {"histogram", histogram},
          {"sizes", {{"min", sizes.front()}, {"p10", percentile(sizes, 0.1)}, {"median", percentile(sizes, 0.5)}, {"p90", percentile(sizes, 0.9)}, {"max", sizes.back()}}}};
}

std::uint64_t peak_rss_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

}  // namespace fl
