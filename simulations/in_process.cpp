#include "simulations/in_process.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

/// How often wait() looks at should_stop while a worker trains.
constexpr auto kStopPoll = std::chrono::milliseconds(50);

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
  const std::size_t shard = training_size(parts_.partition.shard_size(client), parts_.experiment.evaluation.client_holdout);
  const std::size_t floats = message.body().size() / sizeof(float);
  // Measuring is not part of the federation's time: with or without it, rounds begin and end at the same instants.
  DeviceBehaviour behaviour;
  if (message.type() == MessageType::train) {
    behaviour = devices_.behaviour(client, message.round(), planner_->examples_for(shard), message.size_bytes(),
                                   parts_.codec.max_bytes(floats));
  }
  job.leaves = behaviour.leaves;
  if (job.leaves) job.state = State::done;
  {
    const std::lock_guard lock(mutex_);
    jobs_.emplace(Key{now_ + behaviour.duration, sent_++}, std::move(job));
  }
  work_ready_.notify_one();
}

std::optional<Arrival> InProcess::wait(Seconds deadline) {
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
  lock.unlock();
  work_ready_.notify_all();
  Arrival arrival{Arrival::Kind::left, job.client, job.round, now_, std::nullopt};
  if (job.closed) {
    arrival.kind = Arrival::Kind::closed;
  } else if (job.error) {
    std::rethrow_exception(job.error);
  } else if (!job.leaves) {
    arrival.kind = Arrival::Kind::message;
    arrival.message = std::move(job.answer);
  }
  return arrival;
}

void InProcess::close_round(std::uint32_t round) {
  const std::lock_guard lock(mutex_);
  for (auto& [key, job] : jobs_) {
    if (job.round != round) continue;
    job.closed = true;
    *job.withdrawn = true;
    job.answer.reset();
    if (job.state == State::queued) job.state = State::done;
    if (job.state == State::done) release(job);
  }
  result_ready_.notify_all();
  work_ready_.notify_all();
}

void InProcess::release(Job& job) {
  if (std::exchange(job.held, false)) --held_;
}

InProcess::Job* InProcess::next_job() {
  for (auto& [key, job] : jobs_) {
    if (job.state != State::queued) continue;
    // The first job may always start, or a window full of later results would wait for it forever.
    return held_ < window_ || key == jobs_.begin()->first ? &job : nullptr;
  }
  return nullptr;
}

void InProcess::work() {
  Worker worker;
  try {
    worker = parts_.make_worker();
  } catch (...) {
    const std::lock_guard lock(mutex_);
    worker_error_ = std::current_exception();
    result_ready_.notify_all();
    return;
  }
  std::unique_lock lock(mutex_);
  for (;;) {
    Job* job = nullptr;
    work_ready_.wait(lock, [&] { return stopping_ || !actions_.empty() || (job = next_job()) != nullptr; });
    if (stopping_) return;
    if (!actions_.empty()) {
      const auto action = std::move(actions_.front());
      actions_.pop_front();
      lock.unlock();
      action(worker);
      lock.lock();
    } else {
      run_job(worker, *job, lock);
    }
  }
}

void InProcess::run_job(Worker& worker, Job& job, std::unique_lock<std::mutex>& lock) {
  // The job stays where it is in the map until it is delivered, and it is delivered only once it is done.
  job.state = State::running;
  job.held = true;
  ++held_;
  const auto withdrawn = job.withdrawn;
  const ClientId client = job.client;
  const Message task = *job.task;
  lock.unlock();
  std::optional<Message> result;
  std::exception_ptr error;
  try {
    result = answer(worker, client, task, *withdrawn);
  } catch (...) {
    error = std::current_exception();
  }
  lock.lock();
  job.state = State::done;
  if (job.closed) {
    release(job);
  } else {
    job.answer = std::move(result);
  }
  job.error = error;
  job.task.reset();
  result_ready_.notify_all();
}

std::optional<Message> InProcess::answer(Worker& worker, ClientId client, const Message& task,
                                         const std::atomic<bool>& withdrawn) {
  const Experiment& experiment = parts_.experiment;
  if (make_privacy_ && !worker.privacy) worker.privacy = make_privacy_();
  const ClientKit kit{*worker.model,
                      *worker.trainer,
                      parts_.codec,
                      codec_name_,
                      parts_.data,
                      static_cast<std::uint64_t>(experiment.seed),
                      experiment.evaluation.client_holdout,
                      experiment.round.weighting == "uniform",
                      experiment.round.weight_cap,
                      worker.privacy.get()};
  ClientSession session(kit, client, parts_.partition.shard(client));
  return session.handle(task, [&] { return withdrawn.load(std::memory_order_relaxed) || (parts_.should_stop && parts_.should_stop()); });
}

void InProcess::for_each(std::size_t count, const std::function<void(Worker&, std::size_t)>& action) {
  std::size_t remaining = count;
  std::exception_ptr error;
  std::unique_lock lock(mutex_);
  for (std::size_t i = 0; i < count; ++i) {
    actions_.emplace_back([&, i](Worker& worker) {
      std::exception_ptr thrown;
      try {
        action(worker, i);
      } catch (...) {
        thrown = std::current_exception();
      }
      const std::lock_guard guard(mutex_);
      if (thrown && !error) error = thrown;
      if (--remaining == 0) result_ready_.notify_all();
    });
  }
  work_ready_.notify_all();
  bool stopped = false;
  while (remaining != 0 && !worker_error_ && !stopped) {
    result_ready_.wait_for(lock, kStopPoll);
    stopped = parts_.should_stop && parts_.should_stop();
  }
  // Actions that were begun still use this frame; those that were not are dropped.
  remaining -= actions_.size();
  actions_.clear();
  result_ready_.wait(lock, [&] { return remaining == 0; });
  if (worker_error_) std::rethrow_exception(worker_error_);
  if (error) std::rethrow_exception(error);
  if (stopped) throw Interrupted("the run was interrupted");
}

}  // namespace fl
