#include "tests/net_support/net/loopback.h"

#include <algorithm>
#include <chrono>

#include "aggregator/net/serve.h"
#include "aggregator/store/journal.h"
#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "privacy/noise/seeded/seeded_noise_keys.h"

namespace fl::test {
namespace {

/// Long after anything that works: a test that would hang fails instead.
constexpr auto kHangs = std::chrono::seconds(100);

}  // namespace

LoopbackClient::LoopbackClient(ClientConfig config, LocalData data, ClientHooks hooks) {
  hooks.on_event = [this, also = hooks.on_event](const ClientEvent& event) {
    if (also) also(event);
    note(event);
  };
  // Back-off begins at 5 ms and grows as it should; who does not wait at all keeps a core busy.
  if (!hooks.uniform) hooks.uniform = [] { return 0.01; };
  client_ = std::make_unique<DeployedClient>(std::move(config), std::move(data), std::move(hooks));
  thread_ = std::thread([this] {
    ExitCode code = ExitCode::bug;
    std::exception_ptr error;
    try {
      code = client_->run();
    } catch (...) {
      error = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    over_ = true;
    code_ = code;
    error_ = error;
    changed_.notify_all();
  });
}

LoopbackClient::~LoopbackClient() {
  client_->request_stop();
  thread_.join();
}

void LoopbackClient::note(const ClientEvent& event) {
  const std::lock_guard lock(mutex_);
  events_.push_back(event);
  changed_.notify_all();
}

ClientEvent LoopbackClient::await(const std::string& name) {
  std::unique_lock lock(mutex_);
  std::size_t& from = seen_[name];
  const auto next = [&] { return std::find_if(events_.begin() + static_cast<std::ptrdiff_t>(from), events_.end(), [&](const auto& e) { return e.name == name; }); };
  changed_.wait_for(lock, kHangs, [&] { return next() != events_.end() || over_; });
  const auto found = next();
  if (found == events_.end()) throw Error("the client did not say '" + name + "'" + (events_.empty() ? "" : ", but last: " + events_.back().text));
  from = static_cast<std::size_t>(found - events_.begin()) + 1;
  return *found;
}

std::size_t LoopbackClient::count(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  return static_cast<std::size_t>(std::count_if(events_.begin(), events_.end(), [&](const auto& e) { return e.name == name; }));
}

ExitCode LoopbackClient::wait() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, kHangs, [&] { return over_; })) throw Error("the client does not end");
  if (error_) std::rethrow_exception(error_);
  return code_;
}

Loopback::Loopback(const nlohmann::json& experiment)
    : prepared_(prepare(parse_experiment(experiment, "test"))), pki_(static_cast<std::size_t>(prepared_.partition->clients())) {
  config_.experiment = prepared_.experiment;
  config_.folder = (folder_ / "run").string();
  config_.listen = "127.0.0.1:0";
  config_.tls = pki_.server();
  config_.clients.admit = "listed";
  config_.clients.listed = pki_.names();
  config_.clients.minimum = static_cast<std::int64_t>(population());
  config_.limits.retry_s = 0;
  clients_.resize(population());
}

Loopback::~Loopback() {
  // Whoever is behind a partition would not hear a goodbye.
  proxy_.go_on();
  clients_.clear();
  stop_server();
}

void Loopback::start_server() {
  stop_ = false;
  open_ = over_ = false;
  error_ = nullptr;
  std::error_code absent;
  std::filesystem::remove(std::filesystem::path(config_.folder) / "address", absent);
  thread_ = std::thread([this] { run_server(); });
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return open_ || over_; });
  if (!open_) {
    lock.unlock();
    finish();
    throw Error("the aggregator ended before its port was open");
  }
  const std::string address = read_text_file(std::filesystem::path(config_.folder) / "address", 100);
  port_ = static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
  proxy_.retarget(port_);
}

void Loopback::run_server() {
  ServeHooks hooks;
  hooks.should_stop = [this] { return stop_.load(); };
  hooks.take_reload = [this] { return reload_.exchange(false); };
  hooks.noise_keys = noise_keys();
  hooks.worker_setup = evaluation_setup;
  hooks.say = [this](const std::string& line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(line);
    open_ = open_ || std::filesystem::exists(std::filesystem::path(config_.folder) / "address");
    changed_.notify_all();
  };
  hooks.line = [this](const nlohmann::json&) {
    const std::lock_guard lock(mutex_);
    ++rounds_;
    changed_.notify_all();
  };
  nlohmann::json summary;
  std::exception_ptr error;
  try {
    summary = serve(config_, hooks);
  } catch (...) {
    error = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  summary_ = std::move(summary);
  error_ = error;
  over_ = true;
  changed_.notify_all();
}

nlohmann::json Loopback::finish() {
  {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kHangs, [&] { return over_; })) throw Error("the run does not end");
  }
  thread_.join();
  if (error_) std::rethrow_exception(error_);
  return summary_;
}

void Loopback::stop_server() {
  if (!thread_.joinable()) return;
  stop_ = true;
  thread_.join();
}

ClientConfig Loopback::client_config(std::size_t number) const {
  ClientConfig config;
  config.server = "127.0.0.1:" + std::to_string(proxy_.port());
  config.tls = pki_.client(number);
  config.data = prepared_.experiment.data;
  config.data_seed = prepared_.experiment.seed;
  config.state = (folder_ / ("state-" + std::to_string(number))).string();
  config.exit_when_finished = true;
  config.resolve(folder_.path());
  return config;
}

LocalData Loopback::local_data(std::size_t number) const {
  return {prepared_.data.train, prepared_.partition->shard(number), prepared_.data.train->shape()};
}

std::shared_ptr<NoiseKeys> Loopback::noise_keys() const {
  const Experiment& experiment = prepared_.experiment;
  if (!experiment.privacy || experiment.privacy->randomness != "seeded") return nullptr;
  return std::make_shared<SeededNoiseKeys>(static_cast<std::uint64_t>(experiment.seed));
}

LoopbackClient& Loopback::start_client(std::size_t number, ClientHooks hooks) {
  if (!hooks.noise_keys) hooks.noise_keys = noise_keys();
  auto& place = clients_.at(number);
  place.reset();
  place = std::make_unique<LoopbackClient>(client_config(number), local_data(number), std::move(hooks));
  return *place;
}

void Loopback::start_clients(std::size_t first, std::size_t count) {
  for (std::size_t i = first; i < first + count; ++i) start_client(i);
}

std::size_t Loopback::rounds() const {
  const std::lock_guard lock(mutex_);
  return rounds_;
}

void Loopback::await_rounds(std::size_t more) {
  std::unique_lock lock(mutex_);
  const std::size_t wanted = rounds_ + more;
  changed_.wait_for(lock, kHangs, [&] { return rounds_ >= wanted || over_; });
  if (rounds_ >= wanted) return;
  throw Error("only " + std::to_string(rounds_) + " rounds, expected " + std::to_string(wanted) + (lines_.empty() ? "" : "; last words: " + lines_.back()));
}

bool Loopback::said(const std::string& text) const {
  const std::lock_guard lock(mutex_);
  return std::any_of(lines_.begin(), lines_.end(), [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

std::vector<std::string> Loopback::model_hashes() const {
  return open_journal(std::filesystem::path(config_.folder) / "journal.db", JournalMode::existing)->model_hashes();
}

std::vector<RoundReport> Loopback::reports() const {
  return open_journal(std::filesystem::path(config_.folder) / "journal.db", JournalMode::existing)->reports();
}

std::vector<std::string> simulated_hashes(const nlohmann::json& experiment, std::size_t workers) {
  const TemporaryFolder folder;
  SimulationOptions options;
  options.workers = workers;
  options.folder = folder / "run";
  const Prepared prepared = prepare(parse_experiment(experiment, "test"));
  run_simulation(prepared, options);
  return open_journal(folder / "run" / "journal.db", JournalMode::existing)->model_hashes();
}

}  // namespace fl::test
