#include "simulations/audit.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <deque>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "aggregator/engine/privacy_guard.h"
#include "client/device_privacy.h"
#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/wire/limits.h"
#include "fl_core/wire/message.h"
#include "fl_core/wire/tensors.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"
#include "simulations/in_process.h"
#include "simulations/scratch_folder.h"

namespace fl {
namespace {

namespace fs = std::filesystem;

/// The canary's update has this many clip norms, so a clip that does not clip is found out as well, and so is an adaptive one's rise.
constexpr double kOvershoot = 1024;
/// Clients that answer zero beside the canary. More would only cost time: the sum does not change.
constexpr std::uint64_t kOthers = 3;

/// One example of zeros, which nobody trains on.
class NoData final : public Dataset {
 public:
  explicit NoData(ExampleShape shape) : shape_(std::move(shape)) {}
  std::size_t size() const override { return 1; }
  const ExampleShape& shape() const override { return shape_; }
  std::span<const std::int32_t> labels() const override { return labels_; }
  void gather(std::span<const std::uint32_t>, std::span<float> out) const override { std::fill(out.begin(), out.end(), 0.0F); }
  std::size_t memory_bytes() const override { return 0; }
  const std::string& fingerprint() const override { return fingerprint_; }

 private:
  ExampleShape shape_;
  std::vector<std::int32_t> labels_ = {0};
  std::string fingerprint_ = "audit";
};

/// As many clients as the experiment has.
class NoShards final : public Partition {
 public:
  explicit NoShards(std::uint64_t clients) : clients_(clients) {}
  std::uint64_t clients() const override { return clients_; }
  std::vector<std::uint32_t> shard(ClientId) const override { return {0}; }
  std::size_t shard_size(ClientId) const override { return 1; }
  bool disjoint() const override { return false; }

 private:
  std::uint64_t clients_;
};

/// The experiment's layout, filled with zeros, so that adding a release to it rounds nothing.
class NoModel final : public Model {
 public:
  explicit NoModel(SharedLayout layout) : layout_(std::move(layout)), weights_(layout_->size()) {}
  const SharedLayout& layout() const override { return layout_; }
  std::span<float> weights() override { return weights_; }
  std::span<const float> gradient() const override { return {}; }
  double backward(const Batch&, Rng&) override { throw Interrupted("nobody trains in an audit"); }
  Evaluation evaluate(const Batch&) override { return {}; }

 private:
  SharedLayout layout_;
  std::vector<float> weights_;
};

class NoModels final : public ModelFactory {
 public:
  explicit NoModels(SharedLayout layout) : layout_(std::move(layout)) {}
  std::unique_ptr<Model> make(std::uint64_t) const override { return std::make_unique<NoModel>(layout_); }
  ModelCost cost() const override { return {}; }

 private:
  SharedLayout layout_;
};

/// ±1/√N on every coordinate: a unit vector that is orthogonal to none of the ways in which noise on several coordinates can go together.
std::vector<float> direction(std::size_t size) {
  Rng rng(0, Purpose::rotation);
  std::vector<float> unit(size);
  const auto step = static_cast<float>(1 / std::sqrt(static_cast<double>(size)));
  for (float& one : unit) one = (rng.next_u32() & 1U) != 0 ? step : -step;
  return unit;
}

double along(std::span<const float> unit, std::span<const float> vector) {
  double sum = 0;
  for (std::size_t i = 0; i < unit.size(); ++i) sum += static_cast<double>(unit[i]) * static_cast<double>(vector[i]);
  return sum;
}

/// What all trials share.
struct Scene {
  Experiment experiment;
  SharedLayout layout;
  std::shared_ptr<const Dataset> data;
  std::uint64_t population = 0;
  std::string privacy_noise;
  std::vector<float> unit;
  PrivacySetting setting;
  double clip_norm = 1;
  bool on_device = false;         ///< devices bound updates and add the noise
  bool updates_are_seen = false;  ///< each update is a release, and not only their sum
  bool likelihood = false;        ///< sampling is counted on
  std::uint64_t seed = 0;

  ClientId canary() const { return 1 % setting.separation; }  // a member of the group that begins
  /// Others that take part in the canary's rounds, no more than the promise counts on where they bring noise.
  std::uint64_t others() const {
    if (on_device) return setting.minimum_cohort - 1;
    const auto cohort = static_cast<std::uint64_t>(experiment.round.cohort);
    return std::min({kOthers, population - 1, cohort - 1});
  }
  bool replaces() const { return setting.adjacency == Adjacency::replace_one; }
};

/// A transport whose clients answer at once and do not train.
class AuditClients final : public Transport {
 public:
  AuditClients(const Scene& scene, bool present, std::unique_ptr<DevicePrivacy> privacy)
      : scene_(scene), present_(present), privacy_(std::move(privacy)), codec_(codecs().create({{"name", "identity"}}, "codec")) {}

  Roster roster() override {
    Roster roster;
    const bool stays = present_ || scene_.on_device || scene_.replaces();
    for (std::uint64_t i = stays ? 0 : 1; i <= scene_.others(); ++i) roster.ids.push_back(scene_.canary() + i * scene_.setting.separation);
    roster.size = roster.ids.size();
    return roster;
  }
  void send(ClientId client, const Message& message) override {
    const bool is_canary = client == scene_.canary();
    std::vector<float> delta(scene_.unit.size());
    const double sign = present_ ? 1 : scene_.replaces() ? -1 : 0;
    if (is_canary && sign != 0) {
      const auto norm = static_cast<float>(sign * kOvershoot * scene_.clip_norm);
      std::transform(scene_.unit.begin(), scene_.unit.end(), delta.begin(), [norm](float one) { return norm * one; });
    }
    if (privacy_) privacy_->protect(delta, message.round(), client);
    if (is_canary) seen_ += along(scene_.unit, delta) / scene_.clip_norm;
    const Task task = parse_task(message, *scene_.layout);
    const UpdateHeader header{task.round, task.model_version, task.fingerprint, ExactSum::kMaxWeight, 0, {}, "identity"};
    Rng unused(0, Purpose::codec);
    answers_.emplace_back(client, encode_update(header, SharedBuffer(codec_->encode(delta, unused))));
  }
  std::optional<Arrival> wait(Seconds) override {
    if (answers_.empty()) return std::nullopt;
    auto [client, message] = std::move(answers_.front());
    answers_.pop_front();
    const std::uint32_t round = message.round();
    std::optional<Arrival> arrival(std::in_place);
    arrival->kind = Arrival::Kind::message;
    arrival->client = client;
    arrival->round = round;
    arrival->message.emplace(std::move(message));
    return arrival;
  }
  void close_round(std::uint32_t) override {}
  Seconds now() const override { return 0; }

  /// The canary's direction in all of its updates, in clip norms.
  double seen() const { return seen_; }

 private:
  const Scene& scene_;
  bool present_;
  std::unique_ptr<DevicePrivacy> privacy_;
  std::unique_ptr<Codec> codec_;
  std::deque<std::pair<ClientId, Message>> answers_;
  double seen_ = 0;
};

/// ln(1 - q + q e^a), also where e^a is no double.
double log_mixture(double q, double a) {
  if (q >= 1) return a;
  return a < 0 ? std::log1p(q * std::expm1(a)) : a + std::log(q + (1 - q) * std::exp(-a));
}

/// Adds up a trial's score from its releases.
class Score {
 public:
  explicit Score(const Scene& scene) : scene_(scene), before_(scene.unit.size()), now_(scene.unit.size()) {}

  /// The model after a round, as it was published.
  void see(const fs::path& model, const PrivacyReport& report) {
    read_into(read_file(model, limits::kSafetensorsBytes), *scene_.layout, now_, model.string());
    const double step = along(scene_.unit, now_) - along(scene_.unit, before_);
    std::swap(before_, now_);
    // In clip norms: 1 in the mean when the canary took part.
    const double clip_norm = report.clip_norm > 0 ? report.clip_norm : scene_.clip_norm;
    const double x = step * scene_.setting.cohort / clip_norm;
    value_ += scene_.likelihood ? likelihood(x, report.noise_stddev * scene_.setting.cohort / clip_norm) : x;
  }
  double value() const { return value_; }

 private:
  /// ln of how much likelier x is with the canary than without it, under noise of this standard deviation.
  double likelihood(double x, double stddev) const {
    const double twice = 2 * stddev * stddev;
    const double q = scene_.setting.sampling_rate;
    const double there = log_mixture(q, (2 * x - 1) / twice);
    return scene_.replaces() ? there - log_mixture(q, (-2 * x - 1) / twice) : there;
  }

  const Scene& scene_;
  std::vector<float> before_;
  std::vector<float> now_;
  double value_ = 0;
};

/// One run of the experiment, and its score.
double run_trial(const Scene& scene, const fs::path& folder, std::uint64_t number, bool present, const std::function<bool()>& should_stop) {
  Prepared prepared{scene.experiment, {scene.data, scene.data}, std::make_unique<NoShards>(scene.population), std::make_unique<NoModels>(scene.layout)};
  // Another seed for each trial: noise, cohorts and rotations are independent.
  const std::uint64_t seed = Rng(scene.seed, Purpose::synthetic_data, number, present ? 1 : 0).next_u64() >> 1;
  prepared.experiment.seed = static_cast<std::int64_t>(seed);
  std::unique_ptr<NoiseKeys> keys;
  if (scene.experiment.privacy->randomness == "seeded") {
    keys = std::make_unique<SeededNoiseKeys>(seed);
  } else {
    keys = std::make_unique<SecureNoiseKeys>();
  }
  std::optional<PrivacyPlan> plan;
  std::unique_ptr<AuditClients> clients;
  Score score(scene);
  SimulationOptions options;
  options.folder = folder;
  options.privacy_noise = scene.privacy_noise;
  options.should_stop = should_stop;
  options.on_promise = [&](const Promise& promise) {
    if (scene.on_device) plan = promise.plan();
  };
  options.transport = [&](InProcess&) -> Transport& {
    auto privacy = scene.on_device ? std::make_unique<DevicePrivacy>(*plan, scene.layout->size(), 0, *keys) : nullptr;
    clients = std::make_unique<AuditClients>(scene, present, std::move(privacy));
    return *clients;
  };
  options.on_round = [&](const RoundReport& report) {
    if (!scene.updates_are_seen) score.see(folder / "model.safetensors", *report.privacy);
  };
  run_simulation(prepared, options);
  std::error_code ignored;
  fs::remove_all(folder, ignored);
  return scene.updates_are_seen ? clients->seen() : score.value();
}

/// Nothing of a trial must outlive the audit, and a disk that syncs would cost most of its time.
fs::path scratch_parent() {
  const char* wanted = std::getenv("TMPDIR");
  const bool in_memory = (wanted == nullptr || *wanted == '\0') && ::access("/dev/shm", W_OK | X_OK) == 0;
  return in_memory ? fs::path("/dev/shm") : fs::temp_directory_path();
}

struct Scores {
  std::vector<double> with;
  std::vector<double> without;
};

/// All trials, on options.workers threads.
Scores run_trials(const Scene& scene, const fs::path& scratch, const AuditOptions& options) {
  const std::size_t all = 2 * options.trials;
  Scores scores{std::vector<double>(options.trials), std::vector<double>(options.trials)};
  std::atomic<std::size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  std::size_t done = 0;
  std::exception_ptr error;
  const auto stop = [&] { return failed || (options.should_stop && options.should_stop()); };
  const auto work = [&] {
    try {
      for (std::size_t i = next++; i < all && !failed; i = next++) {
        if (stop()) throw Interrupted("the audit was interrupted");
        const bool present = i % 2 == 0;
        (present ? scores.with : scores.without)[i / 2] = run_trial(scene, scratch / std::to_string(i), i / 2, present, stop);
        const std::lock_guard lock(mutex);
        if (options.on_trial) options.on_trial(++done, all);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failed.exchange(true)) error = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  for (std::size_t i = 0; i < std::min(options.workers, all); ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  if (!error) return scores;
  try {
    std::rethrow_exception(error);
  } catch (const Interrupted&) {
    throw Interrupted("the audit was interrupted; it can only be begun again");
  }
}

/// Everything but the mechanism in its place gets out of the way.
void strip(Experiment& experiment) {
  experiment.codec = {{"name", "identity"}};
  experiment.strategy = {{"name", "fedavg"}};
  experiment.observers = nlohmann::json::array();
  experiment.round.deadline_s.reset();
  experiment.round.over_selection = 1;
  experiment.round.max_abandoned = experiment.rounds + 1;
  experiment.evaluation = {};
  experiment.evaluation.every = 0;
  experiment.devices.reset();
  experiment.expect.reset();
}

void check_auditable(const Experiment& experiment) {
  if (!experiment.privacy) throw ConfigError("privacy: missing; an audit needs an experiment with a promise of differential privacy");
  const nlohmann::json& mechanism = experiment.privacy->mechanism;
  if (mechanisms().create(mechanism, "privacy.mechanism")->protects_examples()) {
    bad_value("privacy.mechanism.name", mechanism.at("name"),
              "a mechanism that protects whole clients: which example is the worst depends on the model and its training, which an audit of the mechanism leaves out");
  }
}

/// Fills in what the guard of a run would work with, and returns what it would claim for all rounds.
nlohmann::json derive_claim(Scene& scene, const ScratchFolder& scratch, const std::optional<std::string>& privacy_noise) {
  SecureNoiseKeys keys;
  RunFolder folder(scratch / "claim", RunFolderMode::create);
  if (privacy_noise) folder.store().set_meta("privacy_noise", *privacy_noise);
  const PrivacyGuard guard(PrivacyGuardParts{scene.experiment, folder, keys, scene.layout, scene.population});
  const Promise& promise = guard.promise();
  const double noise = promise.noise_multiplier();
  const auto rounds = static_cast<std::uint32_t>(scene.experiment.rounds);
  const double epsilon = promise.epsilon_after(rounds);
  if (!std::isfinite(epsilon)) bad_value("privacy.noise_multiplier", noise, "noise: without it nothing is claimed that an audit could refute");
  scene.privacy_noise = folder.store().meta("privacy_noise").value();
  scene.setting = promise.setting();
  scene.on_device = promise.mechanism().device(scene.setting, noise) != nullptr;
  scene.updates_are_seen = promise.mechanism().on_device();
  scene.likelihood = promise.mechanism().amplified_by_sampling();
  scene.experiment.privacy->epsilon.reset();
  scene.experiment.privacy->noise_multiplier = noise;
  nlohmann::json claim = promise.statement(epsilon);
  claim["rounds"] = rounds;
  return claim;
}

}  // namespace

AuditResult audit(const Prepared& prepared, const AuditOptions& options) {
  check_auditable(prepared.experiment);
  const ScratchFolder scratch("fl-audit", scratch_parent());
  Scene scene;
  scene.experiment = prepared.experiment;
  scene.layout = prepared.model->make(static_cast<std::uint64_t>(prepared.experiment.seed))->layout();
  scene.data = std::make_shared<NoData>(prepared.data.train->shape());
  scene.population = prepared.partition->clients();
  scene.unit = direction(scene.layout->size());
  scene.clip_norm = scene.experiment.privacy->mechanism.at("clip_norm");
  scene.seed = options.seed.value_or(static_cast<std::uint64_t>(scene.experiment.seed));
  AuditResult result;
  result.claim = derive_claim(scene, scratch, options.privacy_noise);
  result.claimed = result.claim.at("epsilon");
  if (options.on_claim) options.on_claim(result.claim);

  strip(scene.experiment);
  // No accountant changes noise that is given; the quick one keeps the trials' ledgers where it can.
  const bool only_pld = scene.setting.sampling_rate < 1 && scene.replaces();
  if (!only_pld) scene.experiment.privacy->accountant = {{"name", "rdp"}};
  if (options.seed) scene.experiment.privacy->randomness = "seeded";
  const Scores scores = run_trials(scene, scratch.path(), options);
  result.trials = options.trials;
  const double delta = result.claim.at("delta");
  result.bound = epsilon_lower_bound(scores.with, scores.without, delta, kAuditConfidence);
  result.most = most_epsilon(options.trials, delta, kAuditConfidence);
  return result;
}

}  // namespace fl
