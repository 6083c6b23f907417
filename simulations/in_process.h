#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "client/session.h"
#include "fl_core/transport/transport.h"
#include "simulations/device_model/device_model.h"
#include "simulations/partition/partitioner.h"

namespace fl {

/// What one worker owns: a resident model and a trainer. Made on the worker's own thread.
struct Worker {
  std::unique_ptr<Model> model;
  std::unique_ptr<Trainer> trainer;
  std::unique_ptr<DevicePrivacy> privacy;  ///< under a promise
};

/// What all workers share. Everything is borrowed and outlives the transport.
struct InProcessParts {
  const Experiment& experiment;
  const Partition& partition;
  const Dataset& data;
  const Codec& codec;
  std::function<Worker()> make_worker;
  std::function<bool()> should_stop;  ///< polled by trainers and by wait()
};

/// Transport over a pool of threads in virtual time. A task becomes a job when it is sent; a worker lends its model to the
/// virtual client and runs the client session on it. Arrivals come in order of (virtual time, order of sending), so what a
/// deadline cuts off, and all else, is the same for any number of workers.
///
/// Jobs are started in the order in which they will arrive and only a few beyond the first undelivered one, so memory is
/// workers × model however large the cohort is.
class InProcess final : public Transport {
 public:
  InProcess(InProcessParts parts, std::size_t workers);
  ~InProcess() override;

  Roster roster() override { return {parts_.partition.clients(), {}}; }
  void send(ClientId client, const Message& message) override;
  std::optional<Arrival> wait(Seconds deadline) override;
  void close_round(std::uint32_t round) override;
  Seconds now() const override { return now_; }

  /// Every client keeps a privacy promise from now on; each worker makes its own part. REQUIRES: nothing was sent yet.
  void protect(std::function<std::unique_ptr<DevicePrivacy>()> make) { make_privacy_ = std::move(make); }
  /// Sets the clock of a resumed run. REQUIRES: nothing was sent yet.
  void start_at(Seconds time) { now_ = time; }

  /// Runs action(worker, i) for i in [0, count) on the workers and waits. Rethrows what an action throws; throws Interrupted
  /// when asked to stop, with some actions not run.
  void for_each(std::size_t count, const std::function<void(Worker&, std::size_t)>& action);

 private:
  enum class State : std::uint8_t { queued, running, done };
  struct Job {
    ClientId client = 0;
    std::uint32_t round = 0;
    std::optional<Message> task;
    bool leaves = false;
    bool closed = false;
    bool held = false;  ///< its worker's result waits to be delivered (or is being made): counts against the window
    State state = State::queued;
    std::shared_ptr<std::atomic<bool>> withdrawn;
    std::optional<Message> answer;
    std::exception_ptr error;
  };
  using Key = std::pair<Seconds, std::uint64_t>;  // arrival time, order of sending

  void work();
  Job* next_job();
  /// The job holds no result any more, so others may start.
  void release(Job& job);
  void run_job(Worker& worker, Job& job, std::unique_lock<std::mutex>& lock);
  std::optional<Message> answer(Worker& worker, ClientId client, const Message& task, const std::atomic<bool>& withdrawn);
  Arrival deliver(std::map<Key, Job>::iterator first, std::unique_lock<std::mutex>& lock);

  InProcessParts parts_;
  DeviceModel devices_;
  std::string codec_name_;
  std::function<std::unique_ptr<DevicePrivacy>()> make_privacy_;
  std::unique_ptr<Trainer> planner_;  ///< answers examples_for() when a job is sent

  std::mutex mutex_;
  std::condition_variable work_ready_;
  std::condition_variable result_ready_;
  std::map<Key, Job> jobs_;
  std::deque<std::function<void(Worker&)>> actions_;
  std::size_t held_ = 0;
  std::size_t window_;
  std::uint64_t sent_ = 0;
  Seconds now_ = 0;
  bool stopping_ = false;
  std::exception_ptr worker_error_;
  std::vector<std::thread> threads_;
};

}  // namespace fl
