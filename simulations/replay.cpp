#include "simulations/replay.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <set>
#include <utility>

#include "aggregator/store/journal.h"
#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/wire/limits.h"
#include "fl_core/wire/tensors.h"
#include "simulations/in_process.h"
#include "simulations/scratch_folder.h"

namespace fl {
namespace {

namespace fs = std::filesystem;

/// Holds a run folder's lock without writing to it, so that nobody writes to the journal while it is copied.
class ReadLock {
 public:
  explicit ReadLock(const fs::path& folder) : file_(::open((folder / "lock").c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ < 0 || ::flock(file_, LOCK_SH | LOCK_NB) == 0) return;  // no lock file: a copy of a run folder
    ::close(file_);
    throw ConfigError(folder.string() + ": another process works on this run; replay it when that one has ended");
  }
  ~ReadLock() {
    if (file_ >= 0) ::close(file_);
  }
  ReadLock(const ReadLock&) = delete;
  ReadLock& operator=(const ReadLock&) = delete;

 private:
  int file_;
};

void copy_to(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) throw IoError("cannot copy " + from.string() + " to " + to.parent_path().string() + ": " + error.message());
}

std::set<ClientId> accepted_in(const RoundReport& report) {
  std::set<ClientId> accepted;
  for (const ClientOutcome& member : report.cohort) {
    if (member.outcome == Outcome::accepted) accepted.insert(member.client);
  }
  return accepted;
}

/// Asks all of the roster, which is the recorded cohort.
class Everyone final : public Sampler {
 public:
  explicit Everyone(std::uint64_t max_cohort) : max_cohort_(max_cohort) {}
  std::vector<ClientId> pick(const Roster& roster, double, std::uint32_t, Rng&) const override {
    std::vector<ClientId> all(roster.size);
    for (std::uint64_t place = 0; place < roster.size; ++place) all[place] = roster.at(place);
    return all;
  }
  std::uint64_t max_cohort(std::uint64_t, double) const override { return max_cohort_; }

 private:
  std::uint64_t max_cohort_;
};

/// A transport in which who was not accepted in the recorded round has left.
class RecordedClients final : public Transport {
 public:
  RecordedClients(Transport& inner, const std::vector<RoundReport>& rounds) : inner_(inner), rounds_(rounds) {}

  /// Called once a round.
  Roster roster() override {
    FL_CHECK(next_ < rounds_.size(), "a replay has only the recorded rounds");
    const RoundReport& round = rounds_[next_++];
    accepted_ = accepted_in(round);
    Roster roster;
    roster.size = round.cohort.size();
    for (const ClientOutcome& member : round.cohort) roster.ids.push_back(member.client);
    return roster;
  }
  void send(ClientId client, const Message& message) override {
    if (accepted_.count(client) != 0) {
      inner_.send(client, message);
    } else {
      absent_.emplace_back(client, message.round());
    }
  }
  std::optional<Arrival> wait(Seconds deadline) override {
    if (absent_.empty()) return inner_.wait(deadline);
    const auto [client, round] = absent_.front();
    absent_.pop_front();
    return Arrival{Arrival::Kind::left, client, round, inner_.now(), std::nullopt};
  }
  void close_round(std::uint32_t round) override { inner_.close_round(round); }
  Seconds now() const override { return inner_.now(); }

 private:
  Transport& inner_;
  const std::vector<RoundReport>& rounds_;
  std::size_t next_ = 0;
  std::set<ClientId> accepted_;
  std::deque<std::pair<ClientId, std::uint32_t>> absent_;  ///< and the round of what was sent to them
};

void check_clients_exist(const RecordedRun& recorded, const Partition& partition) {
  for (const RoundReport& round : recorded.rounds) {
    for (const ClientId client : accepted_in(round)) {
      if (client < partition.clients()) continue;
      throw ConfigError(recorded.folder.string() + ": client " + std::to_string(client) + " took part in round " + std::to_string(round.round) +
                        ", but the partition of its experiment.json has " + std::to_string(partition.clients()) +
                        " clients: the data that the clients had are not described there, so the run cannot be replayed");
    }
  }
}

/// How many updates the recorded run's exact sum was scaled for.
std::uint64_t max_updates_of(const RecordedRun& recorded, const Partition& partition) {
  if (recorded.max_updates) return *recorded.max_updates;
  const Experiment experiment = parse_experiment(recorded.experiment, (recorded.folder / "experiment.json").string());
  const auto sampler = samplers().create(experiment.sampler, "sampler");
  return std::max<std::uint64_t>(1, sampler->max_cohort(partition.clients(), static_cast<double>(experiment.round.selected())));
}

std::string initial_hash(const Prepared& prepared) {
  const auto model = prepared.model->make(static_cast<std::uint64_t>(prepared.experiment.seed));
  return sha256_hex(write_safetensors(*model->layout(), model->weights()).span());
}

std::string cause(const RecordedRun& recorded, const Prepared& prepared, const RoundReport& now) {
  const std::set<ClientId> accepted = accepted_in(recorded.rounds.at(now.round - 1));
  for (const ClientOutcome& member : now.cohort) {
    if (accepted.count(member.client) == 0 || member.outcome == Outcome::accepted) continue;
    return "client " + std::to_string(member.client) + " was accepted then and is " + outcome_name(member.outcome) + " now";
  }
  const std::string data = prepared.data.train->fingerprint() + prepared.data.test->fingerprint();
  if (!recorded.data_fingerprint.empty() && recorded.data_fingerprint != data) return "the data here are not those that the run began with";
  if (now.examples != recorded.rounds.at(now.round - 1).examples) {
    return "the clients trained on " + std::to_string(recorded.rounds.at(now.round - 1).examples) + " examples then and on " + std::to_string(now.examples) +
           " now: the data and partition of experiment.json are not what the clients had";
  }
  return "either the clients had other data than experiment.json says (data, partition), or another processor or LibTorch computed then";
}

}  // namespace

RecordedRun read_recorded_run(const fs::path& folder) {
  if (!fs::exists(folder / "journal.db") || !fs::exists(folder / "experiment.json")) {
    throw ConfigError(folder.string() + ": not a run folder (no journal.db or no experiment.json); expected one that 'fl simulate', 'fl up' or 'fl-aggregator' made");
  }
  RecordedRun recorded;
  recorded.folder = folder;
  const ScratchFolder scratch("fl-replay");
  {
    const ReadLock lock(folder);
    recorded.experiment = read_json_file(folder / "experiment.json");
    for (const char* name : {"journal.db", "journal.db-wal"}) {
      if (fs::exists(folder / name)) copy_to(folder / name, scratch / name);
    }
  }
  const auto store = open_journal(scratch / "journal.db", JournalMode::existing);
  recorded.rounds = store->reports();
  // Its model is durable although its evaluation was never finished.
  if (auto last = store->incomplete_report()) recorded.rounds.push_back(*std::move(last));
  std::erase_if(recorded.rounds, [](const RoundReport& report) { return report.round == 0; });
  recorded.model_sha256 = store->model_hashes();
  if (recorded.rounds.empty()) throw ConfigError(folder.string() + ": the run has not completed a round yet; there is nothing to replay");
  for (std::size_t i = 0; i < recorded.rounds.size(); ++i) {
    if (recorded.rounds[i].round != i + 1) throw ConfigError(folder.string() + ": the journal has no round " + std::to_string(i + 1) + "; it is damaged");
  }
  if (recorded.model_sha256.size() != recorded.rounds.size() + 1) throw ConfigError(folder.string() + ": the journal has not one model a round; it is damaged");
  if (const auto text = store->meta("max_updates")) recorded.max_updates = std::stoull(*text);
  recorded.privacy_noise = store->meta("privacy_noise");
  recorded.data_fingerprint = store->meta("data_sha256").value_or("");
  return recorded;
}

Experiment replay_experiment(const RecordedRun& recorded) {
  Experiment experiment = parse_experiment(recorded.experiment, (recorded.folder / "experiment.json").string());
  experiment.rounds = static_cast<std::int64_t>(recorded.rounds.size());
  // The sum has the bits of one that the server adds up itself, unless values were rounded for it.
  if (experiment.secure_aggregation && !experiment.secure_aggregation->value_bits) experiment.secure_aggregation.reset();
  if (!experiment.privacy && !experiment.secure_aggregation) experiment.round.cohort = 1;  // unused: the record says who was asked; a promise divides by it
  if (experiment.privacy && experiment.privacy->randomness == "secure") {
    throw ConfigError(recorded.folder.string() + ": its noise came from the operating system and was not kept, so no other run can give the same model; "
                      "only runs with \"privacy.randomness\": \"seeded\" can be replayed");
  }
  experiment.round.over_selection = 1;
  experiment.round.deadline_s.reset();
  // What a rule of the recorded run ended is ended by the number of rounds here.
  experiment.round.max_abandoned = experiment.rounds + 1;
  experiment.observers = nlohmann::json::array();
  experiment.evaluation.every = 0;
  experiment.evaluation.per_client_every = 0;
  experiment.devices.reset();
  experiment.expect.reset();
  return experiment;
}

std::optional<ReplayDifference> replay(const RecordedRun& recorded, const Prepared& prepared, const ReplayOptions& options) {
  check_clients_exist(recorded, *prepared.partition);
  if (const std::string initial = initial_hash(prepared); initial != recorded.model_sha256[0]) {
    return ReplayDifference{0, recorded.model_sha256[0], initial, "the initial model was made by another LibTorch or by another model of this name"};
  }
  const ScratchFolder scratch("fl-replay");
  std::optional<ReplayDifference> difference;
  std::atomic<bool> differs = false;
  std::unique_ptr<RecordedClients> clients;
  SimulationOptions simulation;
  simulation.workers = options.workers;
  simulation.folder = scratch / "run";
  simulation.worker_setup = options.worker_setup;
  simulation.should_stop = [&] { return differs || (options.should_stop && options.should_stop()); };
  simulation.max_updates = max_updates_of(recorded, *prepared.partition);
  simulation.privacy_noise = recorded.privacy_noise;
  simulation.sampler = [&] { return std::make_unique<Everyone>(*simulation.max_updates); };
  simulation.transport = [&](InProcess& inner) -> Transport& {
    clients = std::make_unique<RecordedClients>(inner, recorded.rounds);
    return *clients;
  };
  simulation.on_round = [&](const RoundReport& report) {
    const std::string sha256 = sha256_hex(read_file(scratch / "run" / "model.safetensors", limits::kSafetensorsBytes));
    const std::string& expected = recorded.model_sha256.at(report.round);
    if (sha256 != expected) {
      difference = ReplayDifference{report.round, expected, sha256, cause(recorded, prepared, report)};
      differs = true;
    } else if (options.on_round) {
      options.on_round(report.round, sha256);
    }
  };
  try {
    run_simulation(prepared, simulation);
  } catch (const Interrupted&) {
    if (!difference) throw Interrupted("the replay was interrupted; the run that it replays is as it was");
  }
  return difference;
}

}  // namespace fl
