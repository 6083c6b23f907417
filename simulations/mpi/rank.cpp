#include "simulations/mpi/rank.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>

#include "aggregator/engine/secure_setup.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/plan.h"
#include "simulations/mpi/cluster.h"
#include "simulations/mpi/letters.h"
#include "simulations/mpi/patience.h"
#include "simulations/pooled_evaluation.h"
#include "simulations/simulated_enrolment.h"
#include "simulations/simulation.h"
#include "simulations/virtual_clients.h"

namespace fl {
namespace {

/// Answers that carry updates are not collected beyond this.
constexpr std::size_t kLongLetter = std::size_t{16} << 20U;

/// Letters that workers have for rank 0, and a bell for the thread that sends them. Answers do not ring it: they can wait while there is work.
class Outbox {
 public:
  void put(std::uint64_t ticket, const JobResult& result) {
    const std::lock_guard lock(mutex_);
    if (!answers_) answers_.emplace(Topic::answers);
    answers_->result(ticket, result);
    if (answers_->size() <= kLongLetter) return;
    others_.push_back(std::exchange(answers_, std::nullopt)->finish());
    bell_.notify_one();
  }
  void put(Letter letter) {
    const std::lock_guard lock(mutex_);
    others_.push_back(std::move(letter));
    bell_.notify_one();
  }
  std::vector<Letter> take() {
    const std::lock_guard lock(mutex_);
    std::vector<Letter> letters = std::exchange(others_, {});
    if (answers_) letters.push_back(std::exchange(answers_, std::nullopt)->finish());
    return letters;
  }
  void ring() {
    const std::lock_guard lock(mutex_);
    rung_ = true;
    bell_.notify_one();
  }
  /// Sleeps until the bell rings, but not longer than that.
  void nap(std::chrono::microseconds most) {
    std::unique_lock lock(mutex_);
    bell_.wait_for(lock, most, [this] { return rung_ || !others_.empty(); });
    rung_ = false;
  }

 private:
  std::mutex mutex_;
  std::condition_variable bell_;
  std::optional<LetterWriter> answers_;
  std::vector<Letter> others_;
  bool rung_ = false;
};

/// The workers of one run, and what they need.
class Workshop {
 public:
  Workshop(const Prepared& prepared, const RankOptions& options, const ClusterRun& run, Outbox& outbox)
      : prepared_(prepared),
        options_(options),
        outbox_(outbox),
        codec_(codecs().create(experiment().codec, "codec")),
        in_process_(InProcessParts{experiment(), *prepared.partition, *prepared.data.train, *codec_, [this] { return make_worker(); }, [this] { return stopping_ || options_.should_stop(); }},
                    options.workers) {
    in_process_.ring_when_idle([this] { outbox_.ring(); });
    if (run.sums) in_process_.sum_updates(run.parameters, run.max_updates, run.bound_bits);
    if (!run.plan.empty()) promise(*parse_plan(run.plan).privacy, run.parameters);
    if (experiment().secure_aggregation) {
      const SecureSetup setup = secure_setup_of(experiment(), device_ ? &device_->promise() : nullptr, run.max_updates, run.parameters);
      aggregate_securely(in_process_, experiment(), setup, std::make_shared<const EverybodyIsEnrolled>(), masking_keys_);
    }
  }
  ~Workshop() {
    stopping_ = true;
    for (auto& [round, withdrawn] : withdrawn_) *withdrawn = true;
  }

  InProcess& workers() { return in_process_; }

  void run(LetterReader& jobs, const SharedBuffer& weights) {
    while (!jobs.done()) {
      const std::uint64_t ticket = jobs.number();
      const ClientId client = jobs.number();
      const bool sums = jobs.number() != 0;
      const Message task = jobs.message(weights);
      if (task.type() == MessageType::train) in_process_.begin_round(task.round());
      in_process_.post([=, this, withdrawn = withdrawn_in(task.round())](Worker& worker) {
        outbox_.put(ticket, *withdrawn ? JobResult() : in_process_.run_task(worker, client, task, sums, *withdrawn));
      });
    }
  }

  /// Of the jobs that are here; more of the round may follow.
  void withdraw(std::uint32_t round) {
    if (const auto jobs = withdrawn_.extract(round)) *jobs.mapped() = true;
  }

  void evaluate(std::size_t first, std::size_t count, const SharedBuffer& weights) {
    const auto all = std::make_shared<Measuring>();
    all->left = count;
    if (count == 0) outbox_.put(LetterWriter(Topic::measured).evaluation({}).finish());
    in_process_.when_idle(count, [=, this](Worker& worker, std::size_t i) { measure(worker, first + i, weights, *all); });
  }

 private:
  using Flag = std::shared_ptr<std::atomic<bool>>;
  struct Measuring {
    std::mutex mutex;
    Evaluation sums;
    std::size_t left = 0;
  };

  const Experiment& experiment() const { return prepared_.experiment; }

  Worker make_worker() {
    if (options_.worker_setup) options_.worker_setup();
    return {prepared_.devices->make_model(*prepared_.model, static_cast<std::uint64_t>(experiment().seed)), trainers().create(experiment().trainer, "trainer"), nullptr};
  }

  void promise(const PrivacyPlan& plan, std::uint64_t parameters) {
    keys_ = noise_keys_of(experiment());
    keep_promise(in_process_, experiment(), plan, parameters, *keys_);
    const std::uint64_t steps = trainers().create(experiment().trainer, "trainer")->private_steps();
    device_ = std::make_unique<DevicePrivacy>(plan, parameters, steps, *keys_, experiment().secure_aggregation.has_value());
  }

  Flag withdrawn_in(std::uint32_t round) {
    Flag& flag = withdrawn_[round];
    if (!flag) flag = std::make_shared<std::atomic<bool>>(false);
    return flag;
  }

  void measure(Worker& worker, std::size_t part, const SharedBuffer& weights, Measuring& all) {
    Evaluation sums;
    try {
      sums = evaluate_part(worker, weights, *prepared_.data.test, part);
    } catch (...) {
      outbox_.put(LetterWriter(Topic::failed).error(std::current_exception()).finish());
      return;
    }
    const std::lock_guard lock(all.mutex);
    all.sums.merge(sums);
    if (--all.left == 0) outbox_.put(LetterWriter(Topic::measured).evaluation(all.sums).finish());
  }

  const Prepared& prepared_;
  const RankOptions& options_;
  Outbox& outbox_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<NoiseKeys> keys_;
  SecureNoiseKeys masking_keys_;
  std::unique_ptr<DevicePrivacy> device_;  ///< knows the promise
  std::map<std::uint32_t, Flag> withdrawn_;  ///< by round
  std::atomic<bool> stopping_ = false;
  InProcess in_process_;
};

class Rank {
 public:
  Rank(Communicator& communicator, const RankOptions& options) : communicator_(communicator), options_(options) {}

  void serve() {
    while (!over_) {
      try {
        turn();
      } catch (const RankLost&) {
        throw;  // nobody is left to tell
      } catch (...) {
        fail(std::current_exception());
      }
    }
    workshop_.reset();
    communicator_.post(0, LetterWriter(Topic::bye).finish());
    communicator_.flush();
  }

 private:
  void turn() {
    bool busy = false;
    for (auto received = communicator_.poll(); received; received = communicator_.poll()) {
      heard_ = watch_.now();
      take(LetterReader(received->letter));
      if (over_) return;
      busy = true;
    }
    for (Letter& letter : outbox_.take()) {
      say(std::move(letter));
      busy = true;
    }
    if (workshop_) workshop_->workers().check_workers();
    if (watch_.tick()) say(LetterWriter(Topic::alive).finish());
    if (!failed_ && options_.should_stop()) throw Interrupted("interrupted");
    if (watch_.now() - heard_ > Watch::kSilence) give_up();
    if (busy) return patience_.something_happened();
    outbox_.nap(communicator_.sending() ? Patience::kShortest : patience_.sleep(workshop_ && workshop_->workers().busy()));
  }

  void say(Letter letter) { communicator_.post(0, std::move(letter)); }

  [[noreturn]] void give_up() const {
    throw RankLost("rank " + std::to_string(communicator_.rank()) + " on " + communicator_.host() + ": rank 0 has been silent for " + std::to_string(Watch::kSilence.count()) +
                   " s: it died, or its machine or the network did; 'fl resume' goes on with the run");
  }

  /// Tells rank 0 that this rank cannot go on, and why; from then on it waits for the end.
  void fail(const std::exception_ptr& error) {
    if (std::exchange(failed_, true)) return;
    workshop_.reset();
    say(LetterWriter(Topic::failed).error(error).finish());
  }

  void take(LetterReader letter) {
    switch (letter.topic()) {
      case Topic::end: over_ = true; return;
      case Topic::alive: return;
      case Topic::weights: return take_weights(letter.number());
      case Topic::sum: return add_up(static_cast<std::uint32_t>(letter.number()));
      default: break;
    }
    if (failed_) return;
    switch (letter.topic()) {
      case Topic::begin: return load(letter);
      case Topic::start: return start(letter);
      case Topic::jobs: return workshop_->run(letter, weights_);
      case Topic::withdraw: return workshop_->withdraw(static_cast<std::uint32_t>(letter.number()));
      case Topic::evaluate: {
        const std::size_t first = letter.number();
        return workshop_->evaluate(first, letter.number(), weights_);
      }
      default: throw ProtocolError("a letter of rank 0 that this rank does not know; do all ranks run the same build of fl?");
    }
  }

  void load(LetterReader& letter) {
    const std::string document = letter.text();
    const std::string source = letter.text();
    if (const std::string version = letter.text(); version != options_.version) {
      throw ConfigError("this fl is " + options_.version + ", that of rank 0 is " + version + "; start the same build on every machine");
    }
    Experiment experiment = parse_experiment(nlohmann::json::parse(document), source);
    try {
      prepared_.emplace(prepare(std::move(experiment)));
      prepared_->devices->start_with(static_cast<std::size_t>(communicator_.rank()) * options_.workers);
    } catch (const ConfigError& error) {
      throw ConfigError(source + ": " + error.what());
    }
    const std::string data = prepared_->data.train->fingerprint() + prepared_->data.test->fingerprint();
    say(LetterWriter(Topic::ready).text(communicator_.host()).number(options_.workers).text(data).finish());
  }

  void start(LetterReader& letter) {
    const bool sums = letter.number() != 0;
    parameters_ = letter.number();
    const std::uint64_t max_updates = letter.number();
    const int bound_bits = static_cast<int>(letter.number());
    workshop_ = std::make_unique<Workshop>(*prepared_, options_, ClusterRun{sums, parameters_, max_updates, bound_bits, letter.text()}, outbox_);
  }

  // Collective: a rank that has failed joins in, so that nobody waits for it.
  void take_weights(std::uint64_t size) {
    Bytes bytes = Bytes::uninitialised(size);
    communicator_.broadcast(bytes.span());
    weights_ = SharedBuffer(std::move(bytes));
  }
  void add_up(std::uint32_t round) {
    if (failed_) return communicator_.sum(AlignedArray<std::int64_t>(parameters_).span(), {});
    // A rank that was given nothing to do in this round still has the sum of another.
    workshop_->workers().begin_round(round);
    const ExactSum& sum = workshop_->workers().our_sum();
    say(LetterWriter(Topic::summed).number(sum.terms()).number(sum.total_weight()).finish());
    communicator_.sum(sum.raw(), {});
  }

  Communicator& communicator_;
  const RankOptions& options_;
  Outbox outbox_;
  std::optional<Prepared> prepared_;
  std::unique_ptr<Workshop> workshop_;
  SharedBuffer weights_;
  Watch watch_;
  Watch::Clock::duration heard_ = watch_.now();
  Patience patience_;
  std::size_t parameters_ = 0;
  bool failed_ = false;
  bool over_ = false;
};

}  // namespace

void serve_rank(Communicator& communicator, const RankOptions& options) { Rank(communicator, options).serve(); }

}  // namespace fl
