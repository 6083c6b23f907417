#include "aggregator/net/serve.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "aggregator/engine/run.h"
#include "aggregator/engine/secure_setup.h"
#include "aggregator/net/threaded_evaluator.h"
#include "aggregator/net/tls_transport.h"
#include "aggregator/web/health_server.h"
#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/address.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/plan.h"
#include "fl_core/ml/accelerator.h"
#include "privacy/net/certificate_enrolment.h"

namespace fl {
namespace {

using Clock = std::chrono::steady_clock;

/// An evaluation that says when the engine waits for it.
class WatchedEvaluation final : public PendingEvaluation {
 public:
  /// `wait` is called with what waits.
  WatchedEvaluation(std::unique_ptr<PendingEvaluation> evaluation, std::function<void(const std::function<void()>&)> wait)
      : evaluation_(std::move(evaluation)), wait_(std::move(wait)) {}

  bool ready() override { return evaluation_->ready(); }
  Evaluation result() override {
    Evaluation sums;
    const auto take = [&] { sums = evaluation_->result(); };
    if (ready()) {
      take();
    } else {
      wait_(take);
    }
    return sums;
  }

 private:
  std::unique_ptr<PendingEvaluation> evaluation_;
  std::function<void(const std::function<void()>&)> wait_;
};

std::uint64_t seed_of(const Experiment& experiment) { return static_cast<std::uint64_t>(experiment.seed); }

bool holds_run(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder / "journal.db") || std::filesystem::exists(folder / "experiment.json");
}

class Service {
 public:
  /// `folder` holds the run folder as soon as it is made, also when the rest cannot be.
  Service(const ServerConfig& config, const ServeHooks& hooks, std::unique_ptr<RunFolder>& folder)
      : config_(config),
        hooks_(hooks),
        address_(parse_address(config.listen, "listen")),
        devices_(open_devices()),
        data_(load_data()),
        factory_(models().create(experiment().model, "model", ModelContext{shape_, "model"})),
        initial_(make_initial()),
        goes_on_(holds_run(config.folder)),
        folder_(open_folder(folder)),
        keys_(hooks.noise_keys ? hooks.noise_keys : std::make_shared<SecureNoiseKeys>()),
        privacy_(make_guard()),
        secure_(make_secure()),
        health_(config.health ? std::make_unique<HealthServer>(*config.health, status_) : nullptr),
        transport_(transport_options(), folder_.store(), status_) {
    status_.change([&](Status& s) {
      s.run = experiment().name;
      s.rounds = static_cast<std::uint32_t>(experiment().rounds);
      s.cohort_is_secret = privacy_ && privacy_->server();
    });
  }

  nlohmann::json run() {
    try {
      const nlohmann::json summary = run_federation();
      set_phase(Status::Phase::finished);
      transport_.finish(Goodbye{"the run is finished", static_cast<std::uint32_t>(config_.limits.retry_s), true});
      return summary;
    } catch (const Interrupted&) {
      transport_.finish(Goodbye{"the aggregator stops", static_cast<std::uint32_t>(config_.limits.retry_s), false});
      throw;
    } catch (const std::exception& error) {
      status_.change([&](Status& s) {
        s.phase = Status::Phase::failed;
        s.last_problem = error.what();
      });
      transport_.finish(Goodbye{"the run has failed", 0, true});
      throw;
    }
  }

 private:
  const Experiment& experiment() const { return config_.experiment; }

  RunFolder& open_folder(std::unique_ptr<RunFolder>& folder) const {
    folder = std::make_unique<RunFolder>(config_.folder, goes_on_ ? RunFolderMode::resume : RunFolderMode::create, to_json(experiment()).dump(2) + "\n");
    return *folder;
  }

  /// Where the test part is measured. An aggregator without data needs no GPU.
  std::unique_ptr<Devices> open_devices() const {
    return config_.data_shape ? std::make_unique<Devices>() : std::make_unique<Devices>(experiment().device, "device");
  }

  /// The test part of the experiment's data, or nothing; sets the shape and the fingerprint.
  std::shared_ptr<const Dataset> load_data() {
    if (config_.data_shape) {
      shape_ = *config_.data_shape;
      return nullptr;
    }
    say("loading " + experiment().data.at("name").get<std::string>() + " …");
    const DataSplits splits = data_sources().create(experiment().data, "data")->load(seed_of(experiment()));
    shape_ = splits.test->shape();
    fingerprint_ = splits.train->fingerprint() + splits.test->fingerprint();
    return splits.test;
  }

  ParameterVector make_initial() const {
    const auto model = factory_->make(seed_of(experiment()));
    ParameterVector initial(model->layout());
    std::copy(model->weights().begin(), model->weights().end(), initial.values().begin());
    return initial;
  }

  std::unique_ptr<PrivacyGuard> make_guard() {
    if (!experiment().privacy) return nullptr;
    if (experiment().privacy->randomness == "seeded" && keys_->is_secure()) {
      bad_value("privacy.randomness", "seeded", "\"secure\" in a deployment: noise from a seed is for 'fl simulate', and this program does not have it");
    }
    say("accounting for privacy …");
    auto guard = std::make_unique<PrivacyGuard>(PrivacyGuardParts{experiment(), folder_, *keys_, initial_.layout(), population(), config_.clients.admit == "listed"});
    const Promise& promise = guard->promise();
    say("privacy: " + promise.sentence(promise.epsilon_after(promise.setting().rounds)) + " after " + std::to_string(promise.setting().rounds) + " rounds");
    return guard;
  }

  std::unique_ptr<SecureSetup> make_secure() {
    if (!experiment().secure_aggregation) return nullptr;
    const auto sampler = samplers().create(experiment().sampler, "sampler");
    const std::uint64_t most = max_updates_of(experiment(), *sampler, population(), folder_.store());
    return std::make_unique<SecureSetup>(secure_setup_of(experiment(), privacy_ ? &privacy_->promise() : nullptr, most, initial_.layout()->size()));
  }

  ClientPlan client_plan() const {
    ClientPlan plan = plan_of(experiment(), shape_);
    if (privacy_) plan.privacy = privacy_->promise().plan();
    if (secure_) plan.secure_aggregation = secure_->plan;
    return plan;
  }

  /// The longest answer of a client: an update, or what secure aggregation makes of it, or its shares for everybody else.
  std::uint64_t max_answer_bytes() const {
    const std::uint64_t update = codecs().create(experiment().codec, "codec")->max_bytes(initial_.layout()->size());
    if (!secure_) return update;
    const SecAggPlan& protocol = secure_->protocol;
    return std::max(kSecAggHeaderBytes + (protocol.length * protocol.bits + 7) / 8, kAdvertMessageBytes + kCredentialBytes + static_cast<std::uint64_t>(secure_->plan.max_cohort) * 128);
  }

  TlsTransportOptions transport_options() {
    const ServerLimits& limits = config_.limits;
    TlsTransportOptions options;
    options.reception.host = address_.host;
    options.reception.port = address_.port;
    options.reception.tls = config_.tls;
    options.reception.session = {limits.handshake_s, static_cast<std::uint32_t>(limits.heartbeat_s), limits.minimum_bytes_per_s, limits.frames_per_s};
    options.reception.sessions = static_cast<std::size_t>(limits.sessions);
    options.reception.handshakes_per_address = static_cast<std::size_t>(limits.handshakes_per_address);
    options.desk.plan = plan_text(client_plan());
    options.desk.shape = shape_;
    options.desk.max_update_bytes = max_answer_bytes();
    options.desk.uploads = static_cast<std::size_t>(limits.uploads);
    options.desk.minimum_bytes_per_s = limits.minimum_bytes_per_s;
    options.desk.heartbeat_s = static_cast<std::uint32_t>(limits.heartbeat_s);
    options.desk.grace_s = limits.grace_s;
    options.desk.listed_only = config_.clients.admit == "listed";
    options.desk.listed = config_.clients.listed;
    options.minimum_clients = static_cast<std::uint64_t>(config_.clients.minimum.value_or(experiment().round.cohort));
    options.minimum_at_start = static_cast<std::uint64_t>(config_.clients.at_start.value_or(0));
    options.should_stop = [this] { return should_stop(); };
    options.on_waiting = [this](std::uint64_t ready, std::uint64_t minimum) { waiting(ready, minimum); };
    return options;
  }

  nlohmann::json run_federation() {
    RunParts parts(experiment(), folder_, transport_, std::move(initial_));
    parts.population = population();
    parts.privacy = privacy_.get();
    std::unique_ptr<SecureCollector> collector;
    if (secure_) collector = make_collector(experiment(), *secure_, run_identity(folder_.store()), std::make_shared<const CertificateJudge>(config_.tls));
    parts.secure = collector.get();
    parts.data_fingerprint = fingerprint_;
    if (hooks_.versions != nullptr) parts.facts = *hooks_.versions;
    parts.how_to_go_on = "the same command";
    if (data_) {
      const auto make_model = [this] { return devices_->make_model(*factory_, seed_of(experiment())); };
      evaluator_ = std::make_unique<ThreadedEvaluator>(make_model, data_, static_cast<std::size_t>(config_.workers), hooks_.worker_setup);
      parts.evaluate = [this](const SharedBuffer& weights) { return begin_evaluation(weights); };
    }
    parts.on_begin = [this](std::uint32_t round) { on_begin(round); };
    parts.on_round = [this](const RoundReport& report) { on_round(report); };
    parts.on_progress = [this](std::uint32_t round, std::size_t answered, std::size_t asked) { on_progress(round, answered, asked); };
    parts.set_clock = [this](Seconds time) { transport_.start_at(time); };
    parts.should_stop = [this] { return should_stop(); };
    Run run(std::move(parts));
    announce();
    return run.run();
  }

  std::uint64_t population() const {
    const auto& clients = config_.clients;
    return clients.admit == "listed" ? clients.listed.size() : static_cast<std::uint64_t>(config_.limits.sessions);
  }

  bool should_stop() {
    if (hooks_.take_reload && hooks_.take_reload()) transport_.reload();
    return hooks_.should_stop && hooks_.should_stop();
  }

  void announce() {
    // For scripts and for a test's clients: with port 0 nobody could know it otherwise.
    const std::string address = address_.host + ":" + std::to_string(transport_.port());
    write_file_atomically(folder_.path() / "address", address + "\n");
    say(experiment().name + (goes_on_ ? " goes on" : " begins") + " on " + address + ", run folder " + config_.folder);
    if (health_) say("health on http://" + *config_.health + "/metrics");
    set_phase(Status::Phase::waiting);
  }

  void waiting(std::uint64_t ready, std::uint64_t minimum) {
    set_phase(Status::Phase::waiting);
    if (ready == told_waiting_) return;
    told_waiting_ = ready;
    say("waiting for clients: " + std::to_string(ready) + " of " + std::to_string(minimum) + " are here");
  }

  void on_begin(std::uint32_t round) {
    set_phase(Status::Phase::training);
    told_waiting_ = UINT64_MAX;
    status_.change([&](Status& s) {
      s.round = round;
      s.cohort = 0;
      s.answered = 0;
    });
  }

  void on_progress(std::uint32_t round, std::size_t answered, std::size_t asked) {
    set_phase(answered == asked ? Status::Phase::aggregating : Status::Phase::training);
    status_.change([&](Status& s) {
      s.round = round;
      s.cohort = asked;
      s.answered = answered;
    });
  }

  std::unique_ptr<PendingEvaluation> begin_evaluation(const SharedBuffer& weights) {
    return std::make_unique<WatchedEvaluation>(evaluator_->begin(weights), [this](const std::function<void()>& take) {
      const Status::Phase before = status_.read().phase;
      set_phase(Status::Phase::evaluating);
      take();
      set_phase(before);
    });
  }

  void on_round(const RoundReport& report) {
    status_.change([&](Status& s) {
      s.round = std::max(s.round, report.round);
      for (std::size_t i = 0; i < kOutcomes; ++i) s.outcomes[i] += report.count(static_cast<Outcome>(i));
      if (report.accuracy) s.accuracy = report.accuracy;
      if (report.loss) s.loss = report.loss;
      s.privacy = report.privacy;
    });
    if (hooks_.line) {
      nlohmann::json line = to_json(report);
      line.erase("cohort");
      hooks_.line(line);
    }
    // The next round may have begun.
    Status then = status_.read();
    then.round = report.round;
    then.phase = Status::Phase::training;
    then.cohort = report.cohort.size();
    then.answered = report.cohort.size() - report.count(Outcome::late);
    say(status_line(then) + (report.abandoned ? "  (abandoned)" : ""));
  }

  /// The time since the last change belongs to the phase that ends.
  void set_phase(Status::Phase phase) {
    const auto now = Clock::now();
    const double spent = std::chrono::duration<double>(now - phase_since_).count();
    phase_since_ = now;
    status_.change([&](Status& s) {
      switch (s.phase) {
        case Status::Phase::waiting: s.seconds_waiting += spent; break;
        case Status::Phase::training: s.seconds_training += spent; break;
        case Status::Phase::aggregating: s.seconds_aggregating += spent; break;
        case Status::Phase::evaluating: s.seconds_evaluating += spent; break;
        default: break;
      }
      s.phase = phase;
    });
  }

  void say(const std::string& line) const {
    if (hooks_.say) hooks_.say(line);
  }

  const ServerConfig& config_;
  const ServeHooks& hooks_;
  Address address_;
  ExampleShape shape_;
  std::string fingerprint_;
  std::unique_ptr<Devices> devices_;
  std::shared_ptr<const Dataset> data_;
  std::unique_ptr<ModelFactory> factory_;
  ParameterVector initial_;
  bool goes_on_;
  RunFolder& folder_;
  std::shared_ptr<NoiseKeys> keys_;
  std::unique_ptr<PrivacyGuard> privacy_;
  std::unique_ptr<SecureSetup> secure_;
  StatusBoard status_;
  std::unique_ptr<HealthServer> health_;
  Clock::time_point phase_since_ = Clock::now();
  std::uint64_t told_waiting_ = UINT64_MAX;
  TlsTransport transport_;
  std::unique_ptr<ThreadedEvaluator> evaluator_;
};

}  // namespace

nlohmann::json serve(const ServerConfig& config, const ServeHooks& hooks) {
  std::unique_ptr<RunFolder> folder;
  try {
    Service service(config, hooks, folder);
    return service.run();
  } catch (const ConfigError&) {
    if (folder) folder->discard();
    throw;
  }
}

}  // namespace fl
