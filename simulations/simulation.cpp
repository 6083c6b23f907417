#include "simulations/simulation.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>

#include "aggregator/engine/run.h"
#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/percentile.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/plan.h"
#include "fl_core/ml/batches.h"
#include "simulations/in_process.h"
#include "simulations/mpi/cluster.h"
#include "simulations/pooled_evaluation.h"
#include "simulations/simulated_enrolment.h"
#include "simulations/virtual_clients.h"

namespace fl {
namespace {

constexpr std::size_t kClientsInReport = 50;
/// What a power cut may take of a run: it would come to the same bits again.
constexpr Seconds kSecondsAtRisk = 1;
constexpr std::uint64_t kSizesLookedAt = 10'000;

std::uint64_t seed_of(const Experiment& experiment) { return static_cast<std::uint64_t>(experiment.seed); }

/// Everything that lives as long as one run.
class Simulation {
 public:
  Simulation(const Prepared& prepared, const SimulationOptions& options, RunFolder& folder)
      : prepared_(prepared),
        options_(options),
        folder_(folder),
        codec_(codecs().create(experiment().codec, "codec")),
        in_process_(InProcessParts{experiment(), *prepared.partition, *prepared.data.train, *codec_, [this] { return make_worker(); }, options.should_stop},
                    options.workers) {}

  ~Simulation() {
    if (options_.cluster != nullptr) options_.cluster->leave();
  }

  nlohmann::json run() {
    if (!experiment().privacy) folder_.sync_every(kSecondsAtRisk);
    const auto initial = prepared_.model->make(seed_of(experiment()));
    ParameterVector start(initial->layout());
    std::copy(initial->weights().begin(), initial->weights().end(), start.values().begin());
    if (options_.max_updates) folder_.store().set_meta("max_updates", std::to_string(*options_.max_updates));
    if (options_.privacy_noise) folder_.store().set_meta("privacy_noise", *options_.privacy_noise);
    std::unique_ptr<PrivacyGuard> privacy = make_guard(start.layout());
    std::unique_ptr<SecureCollector> secure = make_secure(start.layout()->size(), privacy.get());
    RunParts parts(experiment(), folder_, options_.transport ? options_.transport(in_process_) : in_process_, std::move(start));
    parts.population = prepared_.partition->clients();
    parts.data_fingerprint = prepared_.data.train->fingerprint() + prepared_.data.test->fingerprint();
    if (options_.sampler) parts.sampler = options_.sampler();
    if (options_.versions != nullptr) parts.facts = *options_.versions;
    parts.facts["workers"] = options_.cluster ? options_.cluster->workers() : options_.workers;
    if (options_.cluster) parts.facts["ranks"] = options_.cluster->ranks();
    parts.how_to_go_on = "fl resume " + folder_.path().string();
    parts.evaluate = [this](const SharedBuffer& weights) { return begin_evaluation(weights); };
    parts.on_round = options_.on_round;
    parts.on_progress = options_.on_progress;
    parts.set_clock = [this](Seconds time) { in_process_.start_at(time); };
    parts.should_stop = options_.should_stop;
    parts.privacy = privacy.get();
    parts.secure = secure.get();
    Run run(std::move(parts));
    // A transport around this one wants to see the updates.
    const bool sums = run.takes_sums() && !options_.transport;
    if (sums) in_process_.sum_updates(initial->layout()->size(), max_updates(), bound_bits());
    if (options_.cluster) start_cluster(sums, initial->layout()->size(), privacy.get());
    write_file_atomically(folder_.path() / "partition.json", describe_partition(*prepared_.partition, *prepared_.data.train, kClientsInReport).dump() + "\n");
    return run.run();
  }

 private:
  const Experiment& experiment() const { return prepared_.experiment; }
  std::uint64_t max_updates() { return std::stoull(folder_.store().meta("max_updates").value()); }
  int bound_bits() const { return static_cast<int>(experiment().round.update_bound_bits); }

  Worker make_worker() {
    if (options_.worker_setup) options_.worker_setup();
    return {prepared_.devices->make_model(*prepared_.model, seed_of(experiment())), trainers().create(experiment().trainer, "trainer"), nullptr};
  }

  std::unique_ptr<PrivacyGuard> make_guard(const SharedLayout& layout) {
    if (!experiment().privacy) return nullptr;
    keys_ = noise_keys_of(experiment());
    auto guard = std::make_unique<PrivacyGuard>(PrivacyGuardParts{experiment(), folder_, *keys_, layout, prepared_.partition->clients()});
    if (options_.on_promise) options_.on_promise(guard->promise());
    keep_promise(in_process_, experiment(), guard->promise().plan(), layout->size(), *keys_);
    return guard;
  }

  std::unique_ptr<SecureCollector> make_secure(std::uint64_t parameters, const PrivacyGuard* privacy) {
    if (!experiment().secure_aggregation) return nullptr;
    const auto sampler = options_.sampler ? options_.sampler() : samplers().create(experiment().sampler, "sampler");
    const std::uint64_t most = max_updates_of(experiment(), *sampler, prepared_.partition->clients(), folder_.store());
    const SecureSetup setup = secure_setup_of(experiment(), privacy ? &privacy->promise() : nullptr, most, parameters);
    const auto judge = std::make_shared<const EverybodyIsEnrolled>();
    aggregate_securely(in_process_, experiment(), setup, judge, masking_keys_);
    return make_collector(experiment(), setup, kSimulatedRun, judge);
  }

  /// The other ranks build what their workers need from the experiment and from this.
  void start_cluster(bool takes_sums, std::size_t parameters, const PrivacyGuard* privacy) {
    ClusterRun run;
    run.sums = takes_sums;
    run.parameters = parameters;
    run.max_updates = max_updates();
    run.bound_bits = bound_bits();
    if (privacy) {
      ClientPlan plan = plan_of(experiment(), prepared_.data.train->shape());
      plan.privacy = privacy->promise().plan();
      run.plan = plan_text(plan);
    }
    options_.cluster->start(in_process_, run);
  }

  std::unique_ptr<PendingEvaluation> begin_evaluation(const SharedBuffer& weights) {
    const std::size_t parts = evaluation_parts(prepared_.data.test->size());
    const auto begin = [&](std::size_t first, std::size_t count) -> std::unique_ptr<PendingEvaluation> {
      return std::make_unique<PooledEvaluation>(in_process_, *prepared_.data.test, weights, first, count);
    };
    return options_.cluster ? options_.cluster->begin_evaluation(weights, parts, begin) : begin(0, parts);
  }

  const Prepared& prepared_;
  const SimulationOptions& options_;
  RunFolder& folder_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<NoiseKeys> keys_;
  SecureNoiseKeys masking_keys_;  ///< masks leave no trace in a sum, so they need not follow from the seed
  InProcess in_process_;
};

}  // namespace

Prepared prepare(Experiment experiment) {
  Prepared prepared;
  const std::uint64_t seed = seed_of(experiment);
  prepared.devices = std::make_unique<Devices>(experiment.device, "device");
  prepared.devices->require(trainers().create(experiment.trainer, "trainer")->runs_on_accelerators(), "trainer.name", trainers().name_of(experiment.trainer, "trainer"));
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
  RunFolder folder(options.folder, options.resume ? RunFolderMode::resume : RunFolderMode::create, to_json(prepared.experiment).dump(2) + "\n");
  try {
    Simulation simulation(prepared, options, folder);
    return simulation.run();
  } catch (const ConfigError&) {
    folder.discard();
    throw;
  }
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

}  // namespace fl
