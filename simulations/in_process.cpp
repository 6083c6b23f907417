#include "simulations/in_process.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// How often wait() looks at should_stop while a worker trains.
constexpr auto kStopPoll = std::chrono::milliseconds(50);

/// A worker takes no more jobs at once than come to so many multiply-adds of one layer, a millisecond or so, ...
constexpr double kWorkAtOnce = 1 << 22;
/// ... nor more than so many.
constexpr std::size_t kJobsAtOnce = 16;

}  // namespace

InProcess::InProcess(InProcessParts parts, std::size_t workers)
    : parts_(std::move(parts)),
      devices_(parts_.experiment.devices, static_cast<std::uint64_t>(parts_.experiment.seed)),
      codec_name_(parts_.experiment.codec.at("name")),
      planner_(trainers().create(parts_.experiment.trainer, "trainer")),
      window_(2 * workers) {
  FL_CHECK(workers > 0, "a pool without workers");
  for (std::size_t i = 0; i < workers; ++i) threads_.emplace_back([this] { work(); });
}

InProcess::~InProcess() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    for (auto& [key, job] : jobs_) {
      if (job.withdrawn) *job.withdrawn = true;
    }
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void InProcess::send(ClientId client, const Message& message) {
  Job job;
  job.client = client;
  job.round = message.round();
  job.task = message;
  job.withdrawn = std::make_shared<std::atomic<bool>>(false);
  const DeviceBehaviour behaviour = behaviour_of(client, message);
  job.leaves = behaviour.leaves;
  if (job.leaves) job.state = State::done;
  const Seconds arrival = now_ + behaviour.duration;
  const auto limit = parts_.experiment.round.deadline_s;
  job.sums = sum_ && !job.leaves && message.type() == MessageType::train && arrival <= (limit ? now_ + *limit : kNever);
  if (job.sums) job.cost = examples_of(client);
  begin_round(message.round());
  {
    const std::lock_guard lock(mutex_);
    const Key key{arrival, sent_++};
    if (job.sums) {
      longest_.emplace(-job.cost, key);
    } else if (job.state == State::queued) {
      ++queued_;
    }
    if (job.state == State::queued) queued_cost_ += job.cost;
    jobs_.emplace(key, std::move(job));
    announced_ = false;
  }
  work_ready_.notify_one();
}

void InProcess::begin_round(std::uint32_t round) {
  const std::lock_guard lock(mutex_);
  if (std::exchange(round_, round) == round) return;
  secure_.clear();
  homes_.clear();
  if (sum_) sum_->clear();
}

std::int64_t InProcess::examples_of(ClientId client) const {
  return planner_->examples_for(training_size(parts_.partition.shard_size(client), parts_.experiment.evaluation.client_holdout));
}

DeviceBehaviour InProcess::behaviour_of(ClientId client, const Message& message) const {
  const std::uint32_t round = message.round();
  if (message.type() == MessageType::secure_step) {
    const std::uint32_t step = parse_secure_header(message).step;
    // Shares and signatures that come are about as long as those that went.
    return devices_.step(client, round, step, message.size_bytes(), step == 3 ? secure_input_bytes_ : message.size_bytes());
  }
  // Measuring is not part of the federation's time: with or without it, rounds begin and end at the same instants.
  if (message.type() != MessageType::train) return {};
  const std::size_t floats = message.body().size() / sizeof(float);
  const std::uint64_t bytes_up = make_secure_ ? 0 : parts_.codec.max_bytes(floats);
  DeviceBehaviour behaviour = devices_.behaviour(client, round, examples_of(client), message.size_bytes(), bytes_up);
  if (make_secure_) behaviour.leaves = devices_.leaves_in_step(client, round) == 1;
  return behaviour;
}

void InProcess::aggregate_securely(std::function<std::unique_ptr<SecureSession>(ClientId)> make, std::uint64_t input_bytes) {
  make_secure_ = std::move(make);
  secure_input_bytes_ = input_bytes;
}

std::shared_ptr<SecureSession> InProcess::secure_session(ClientId client, std::uint32_t round) {
  if (!make_secure_) return nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (const auto found = secure_.find(client); round == round_ && found != secure_.end()) return found->second;
  }
  std::shared_ptr<SecureSession> fresh = make_secure_(client);
  const std::lock_guard lock(mutex_);
  // A job whose round was closed meanwhile keeps its session to itself.
  return round == round_ ? secure_.emplace(client, std::move(fresh)).first->second : fresh;
}

std::optional<Arrival> InProcess::wait(Seconds deadline) {
  // Only now are all jobs known of which the longest are to be begun first.
  if (elsewhere_ && !std::exchange(announced_, true)) elsewhere_->jobs_changed();
  std::unique_lock lock(mutex_);
  if (jobs_.empty() || jobs_.begin()->first.first > deadline) {
    FL_CHECK(deadline != kNever, "wait() without a deadline while nothing is outstanding");
    now_ = std::max(now_, deadline);
    return std::nullopt;
  }
  const auto first = jobs_.begin();
  while (first->second.state != State::done && !worker_error_) {
    if (parts_.should_stop && parts_.should_stop()) throw Interrupted("the run was interrupted");
    result_ready_.wait_for(lock, kStopPoll);
  }
  if (worker_error_) std::rethrow_exception(worker_error_);
  return deliver(first, lock);
}

Arrival InProcess::deliver(std::map<Key, Job>::iterator first, std::unique_lock<std::mutex>& lock) {
  Job job = std::move(first->second);
  now_ = std::max(now_, first->first.first);
  jobs_.erase(first);
  release(job);
  const bool others_wait = queued_ > 0;  // for room: jobs that sum need none
  lock.unlock();
  if (others_wait) work_ready_.notify_all();
  if (others_wait && elsewhere_) elsewhere_->jobs_changed();
  Arrival arrival{Arrival::Kind::left, job.client, job.round, now_, std::nullopt};
  if (job.closed) {
    arrival.kind = Arrival::Kind::closed;
  } else if (job.result.error) {
    std::rethrow_exception(job.result.error);
  } else if (!job.leaves) {
    arrival.kind = Arrival::Kind::message;
    arrival.message = std::move(job.result.answer);
    arrival.summed_bytes = job.result.summed_bytes;
  }
  return arrival;
}

void InProcess::close_round(std::uint32_t round) {
  closed_ = round;
  if (elsewhere_) elsewhere_->withdraw(round);
  const std::lock_guard lock(mutex_);
  std::erase_if(lent_, [&](const auto& lent) {
    Job& job = jobs_.at(lent.second);
    if (job.round == round) job.state = State::done;
    return job.round == round;
  });
  for (auto& [key, job] : jobs_) {
    if (job.round != round) continue;
    job.closed = true;
    *job.withdrawn = true;
    job.result = {};
    if (job.state == State::queued) {
      queued_cost_ -= job.cost;
      if (!job.sums) --queued_;
      longest_.erase({-job.cost, key});
      job.state = State::done;
    }
    if (job.state == State::done) release(job);
  }
  result_ready_.notify_all();
  work_ready_.notify_all();
}

std::optional<PartialSum> InProcess::take_sum() {
  // A round in which nobody was asked has left the sum of the one before.
  if (!sum_ || round_ != closed_) return std::nullopt;
  if (elsewhere_) return elsewhere_->gather(round_, sum_->total());
  const ExactSum& ours = sum_->total();
  return PartialSum{ours.raw(), ours.terms(), ours.total_weight()};
}

void InProcess::release(Job& job) {
  if (std::exchange(job.held, false)) --held_;
}

InProcess::Entry* InProcess::next_job(std::size_t place) {
  if (!longest_.empty()) return &*jobs_.find(longest_.begin()->second);
  if (queued_ == 0) return nullptr;
  for (auto& entry : jobs_) {
    const auto& [key, job] = entry;
    if (job.state != State::queued) continue;
    if (const auto home = homes_.find(job.client); home != homes_.end() && home->second != place) continue;
    // The first job may always start, or a window full of later results would wait for it forever.
    return held_ < window_ || key == jobs_.begin()->first ? &entry : nullptr;
  }
  return nullptr;
}

void InProcess::take(Entry& entry, std::size_t place) {
  auto& [key, job] = entry;
  // The job stays where it is in the map until it is delivered, and it is delivered only once it is done.
  job.state = State::running;
  queued_cost_ -= job.cost;
  if (make_secure_) homes_.emplace(job.client, place);
  if (job.sums) {
    longest_.erase({-job.cost, key});
  } else {
    --queued_;
    job.held = true;
    ++held_;
  }
}

void InProcess::finish(Job& job, JobResult result) {
  job.state = State::done;
  if (job.closed) {
    release(job);
  } else {
    job.result.answer = std::move(result.answer);
    job.result.summed_bytes = result.summed_bytes;
  }
  job.result.error = std::move(result.error);
  job.task.reset();
  result_ready_.notify_all();
}

void InProcess::work() {
  Worker worker;
  try {
    worker = parts_.make_worker();
  } catch (...) {
    fail(std::current_exception());
    return;
  }
  std::vector<Entry*> share;
  std::unique_lock lock(mutex_);
  for (;;) {
    Entry* entry = nullptr;
    std::pair<std::shared_ptr<SpareWork>, std::size_t> spare;
    const auto found = [&] { return stopping_ || !actions_.empty() || (entry = next_job(0)) != nullptr || (spare = next_spare_part()).first; };
    if (!found()) {
      ++idle_;
      if (bell_) bell_();
      work_ready_.wait(lock, found);
      --idle_;
    }
    if (stopping_) return;
    if (!actions_.empty()) {
      const auto action = std::move(actions_.front());
      actions_.pop_front();
      lock.unlock();
      action(worker);
      lock.lock();
    } else if (entry != nullptr) {
      take_share(*entry, share);
      run_jobs(worker, share, lock);
    } else {
      lock.unlock();
      spare.first->run(worker, spare.second);
      spare.first.reset();
      lock.lock();
    }
  }
}

void InProcess::take_share(Entry& first, std::vector<Entry*>& share) {
  share.assign(1, &first);
  take(first, 0);
  // A quarter of what is there for each worker, here and elsewhere: towards the end of a round everybody takes less, so that nobody waits long.
  const std::size_t workers = window_ / 2;
  const std::size_t most = std::min(kJobsAtOnce, longest_.size() / (4 * workers));
  const double floats = static_cast<double>(first.second.task->body().size()) / sizeof(float);
  double work = static_cast<double>(first.second.cost) * floats;
  while (first.second.sums && share.size() < most) {
    Entry& next = *next_job(0);
    work += static_cast<double>(next.second.cost) * floats;
    if (work > kWorkAtOnce) return;
    take(next, 0);
    share.push_back(&next);
  }
}

void InProcess::run_jobs(Worker& worker, const std::vector<Entry*>& jobs, std::unique_lock<std::mutex>& lock) {
  lock.unlock();
  std::vector<JobResult> results;
  for (Entry* entry : jobs) {
    // Of a running job nobody else changes what is read here.
    const Job& job = entry->second;
    results.push_back(run_task(worker, job.client, *job.task, job.sums, *job.withdrawn));
  }
  lock.lock();
  for (std::size_t i = 0; i < jobs.size(); ++i) finish(jobs[i]->second, std::move(results[i]));
}

JobResult InProcess::run_task(Worker& worker, ClientId client, const Message& task, bool sums, const std::atomic<bool>& withdrawn) {
  JobResult result;
  try {
    result.answer = answer(worker, client, task, withdrawn);
    if (sums && result.answer && sum_->add(*result.answer)) {
      result.summed_bytes = result.answer->body().size();
      result.answer = Message(result.answer->type(), result.answer->round(), result.answer->header(), SharedBuffer());
    }
  } catch (...) {
    result.error = std::current_exception();
  }
  return result;
}

void InProcess::share_with(Elsewhere* elsewhere, std::size_t workers) {
  const std::lock_guard lock(mutex_);
  elsewhere_ = elsewhere;
  window_ = 2 * (threads_.size() + workers);
}

std::optional<LentJob> InProcess::lend(std::size_t place, bool only_sums) {
  const std::lock_guard lock(mutex_);
  auto* entry = next_job(place);
  if (entry == nullptr || (only_sums && !entry->second.sums)) return std::nullopt;
  take(*entry, place);
  const auto& [key, job] = *entry;
  lent_.emplace(key.second, key);
  return LentJob{key.second, job.client, *job.task, job.sums, job.cost};
}

void InProcess::give_back(std::uint64_t ticket, JobResult result) {
  const std::lock_guard lock(mutex_);
  const auto lent = lent_.find(ticket);
  if (lent == lent_.end()) return;
  finish(jobs_.at(lent->second), std::move(result));
  lent_.erase(lent);
}

InProcess::Backlog InProcess::backlog() {
  const std::lock_guard lock(mutex_);
  return {longest_.size() + queued_, queued_cost_};
}

void InProcess::fail(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  if (!worker_error_) worker_error_ = std::move(error);
  result_ready_.notify_all();
}

void InProcess::post(std::function<void(Worker&)> action) {
  {
    const std::lock_guard lock(mutex_);
    actions_.push_back(std::move(action));
  }
  work_ready_.notify_one();
}

void InProcess::check_workers() {
  const std::lock_guard lock(mutex_);
  if (worker_error_) std::rethrow_exception(worker_error_);
}

bool InProcess::busy() {
  const std::lock_guard lock(mutex_);
  return idle_ == 0;
}

void InProcess::ring_when_idle(std::function<void()> bell) {
  const std::lock_guard lock(mutex_);
  bell_ = std::move(bell);
}

std::optional<Message> InProcess::answer(Worker& worker, ClientId client, const Message& task,
                                         const std::atomic<bool>& withdrawn) {
  const Experiment& experiment = parts_.experiment;
  if (make_privacy_ && !worker.privacy) worker.privacy = make_privacy_();
  const std::shared_ptr<SecureSession> secure = secure_session(client, task.round());
  const ClientKit kit{*worker.model,
                      *worker.trainer,
                      parts_.codec,
                      codec_name_,
                      parts_.data,
                      static_cast<std::uint64_t>(experiment.seed),
                      experiment.evaluation.client_holdout,
                      experiment.round.weighting == "uniform",
                      experiment.round.weight_cap,
                      worker.privacy.get(),
                      secure.get()};
  ClientSession session(kit, client, task.type() == MessageType::secure_step ? std::vector<std::uint32_t>() : parts_.partition.shard(client));
  return session.handle(task, [&] { return withdrawn.load(std::memory_order_relaxed) || (parts_.should_stop && parts_.should_stop()); });
}

std::shared_ptr<SpareWork> InProcess::when_idle(std::size_t parts, SpareWork::Action action) {
  const auto work = std::make_shared<SpareWork>(parts, std::move(action));
  {
    const std::lock_guard lock(mutex_);
    spare_.push_back(work);
  }
  work_ready_.notify_all();
  return work;
}

std::pair<std::shared_ptr<SpareWork>, std::size_t> InProcess::next_spare_part() {
  for (; !spare_.empty(); spare_.pop_front()) {
    if (const auto part = spare_.front()->take()) return {spare_.front(), *part};
  }
  return {};
}

void InProcess::await(SpareWork& work) {
  bool stopped = false;
  const auto cut_short = [&] {
    stopped = stopped || (parts_.should_stop && parts_.should_stop());
    const std::lock_guard lock(mutex_);
    return stopped || worker_error_;
  };
  while (!work.wait_for(kStopPoll)) {
    if (cut_short()) work.drop();
  }
  check_workers();
  work.check();
  if (stopped) throw Interrupted("the run was interrupted");
}

}  // namespace fl
