#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "client/session.h"
#include "fl_core/transport/transport.h"
#include "simulations/device_model/device_model.h"
#include "simulations/partition/partitioner.h"
#include "simulations/spare_work.h"
#include "simulations/update_sum.h"

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

/// What came of a job.
struct JobResult {
  std::optional<Message> answer;
  std::optional<std::uint64_t> summed_bytes;  ///< the answer's body is in the sum of updates, and had so many bytes
  std::exception_ptr error;
};

/// A job that a worker of another process runs.
struct LentJob {
  std::uint64_t ticket = 0;
  ClientId client = 0;
  Message task;
  bool sums = false;       ///< its update may be added up where it is made
  std::int64_t cost = 1;   ///< examples to train on
};

/// Workers of other processes, which take jobs from a transport with lend() and give_back(). No call blocks, but for gather().
class Elsewhere {
 public:
  virtual ~Elsewhere() = default;
  /// There may be jobs to lend. Any thread.
  virtual void jobs_changed() = 0;
  /// Nobody waits any more for the jobs of this round that were lent.
  virtual void withdraw(std::uint32_t round) = 0;
  /// The round's sum over all processes, with `ours` in it; valid until the next call.
  virtual PartialSum gather(std::uint32_t round, const ExactSum& ours) = 0;
};

/// Transport over a pool of threads in virtual time. A task becomes a job when it is sent; a worker lends its model to the
/// virtual client and runs the client session on it. Arrivals come in order of (virtual time, order of sending), so what a
/// deadline cuts off, and all else, is the same for any number of workers.
///
/// Jobs are started in the order in which they will arrive and only a few beyond the first undelivered one, so memory is
/// workers × model however large the cohort is.
///
/// Where updates are summed on their way (sum_updates()), nothing of them is kept, so jobs are started with the longest first: it is known
/// when they are sent which of them arrive in time. Of such jobs a worker takes several at once where they are short: their clients then
/// cost microseconds.
class InProcess final : public Transport {
 public:
  InProcess(InProcessParts parts, std::size_t workers);
  ~InProcess() override;

  Roster roster() override { return {parts_.partition.clients(), {}}; }
  void send(ClientId client, const Message& message) override;
  std::optional<Arrival> wait(Seconds deadline) override;
  void close_round(std::uint32_t round) override;
  std::optional<PartialSum> take_sum() override;
  Seconds now() const override { return now_; }

  /// Every client keeps a privacy promise from now on; each worker makes its own part. REQUIRES: nothing was sent yet.
  void protect(std::function<std::unique_ptr<DevicePrivacy>()> make) { make_privacy_ = std::move(make); }
  /// Updates are aggregated securely from now on: `make` gives a client's part, which lives until the next round. `input_bytes`: of a
  /// masked update. REQUIRES: nothing was sent yet.
  void aggregate_securely(std::function<std::unique_ptr<SecureSession>(ClientId)> make, std::uint64_t input_bytes);
  /// Updates that arrive in time are added up by the workers that made them. REQUIRES: the engine takes sums (Run::takes_sums()).
  void sum_updates(std::size_t parameters, std::uint64_t max_updates, int bound_bits) {
    sum_.emplace(parts_.codec, parameters, max_updates, bound_bits, threads_.size());
  }
  /// Sets the clock of a resumed run. REQUIRES: nothing was sent yet.
  void start_at(Seconds time) { now_ = time; }

  /// Has action(worker, i) run for i in [0, parts) by workers that have no job to start, after all that was given before. Returns at once. What the
  /// action uses must last until the work is over. Any thread.
  std::shared_ptr<SpareWork> when_idle(std::size_t parts, SpareWork::Action action);
  /// Waits until it is over. Rethrows what a part threw; throws Interrupted when asked to stop, with some parts not done, and what kept a worker
  /// from starting.
  void await(SpareWork& work);

  /// From now on so many workers of other processes take jobs as well. `elsewhere` is borrowed; null: no longer.
  void share_with(Elsewhere* elsewhere, std::size_t workers);
  /// The next job for the place with this number (from 1; 0 is this process), if there is one that may be started; `only_sums`: that keeps no
  /// memory here. A client under secure aggregation stays at its place for a round. Any thread, like all of the following.
  std::optional<LentJob> lend(std::size_t place, bool only_sums);
  /// The result of a lent job; one that nobody waits for any more is dropped.
  void give_back(std::uint64_t ticket, JobResult result);
  /// The jobs that wait to be started.
  struct Backlog {
    std::size_t jobs = 0;
    std::int64_t cost = 0;
  };
  Backlog backlog();
  /// Makes wait() throw this.
  void fail(std::exception_ptr error);

  /// The other side of lend(): runs `action` on a worker, after all that was posted before. It must not throw.
  void post(std::function<void(Worker&)> action);
  /// What a worker makes of a task; `sums` as in LentJob. begin_round() comes before the first of a round.
  JobResult run_task(Worker& worker, ClientId client, const Message& task, bool sums, const std::atomic<bool>& withdrawn);
  /// Forgets what belongs to another round: the sum, and the clients' secrets.
  void begin_round(std::uint32_t round);
  /// What this process added up. REQUIRES: no update of the round is being made.
  const ExactSum& our_sum() { return sum_.value().total(); }
  /// Throws what kept a worker from starting.
  void check_workers();
  /// Whether no worker waits for something to do.
  bool busy();
  /// From now on `bell` is called on a worker's thread when it finds nothing to do; empty: no longer. It must not call back.
  void ring_when_idle(std::function<void()> bell);

 private:
  enum class State : std::uint8_t { queued, running, done };
  struct Job {
    ClientId client = 0;
    std::uint32_t round = 0;
    std::optional<Message> task;
    bool leaves = false;
    bool closed = false;
    bool sums = false;
    std::int64_t cost = 1;
    bool held = false;  ///< its worker's result waits to be delivered (or is being made): counts against the window
    State state = State::queued;
    std::shared_ptr<std::atomic<bool>> withdrawn;
    JobResult result;
  };
  using Key = std::pair<Seconds, std::uint64_t>;  // arrival time, order of sending
  using Entry = std::pair<const Key, Job>;

  std::int64_t examples_of(ClientId client) const;
  DeviceBehaviour behaviour_of(ClientId client, const Message& message) const;
  std::shared_ptr<SecureSession> secure_session(ClientId client, std::uint32_t round);
  void work();
  Entry* next_job(std::size_t place);
  /// What a worker without a job does: a part of the oldest work. Null where there is none.
  std::pair<std::shared_ptr<SpareWork>, std::size_t> next_spare_part();
  void take(Entry& entry, std::size_t place);
  void finish(Job& job, JobResult result);
  /// The job holds no result any more, so others may start.
  void release(Job& job);
  /// Takes `first` and those that the same worker runs before it comes back.
  void take_share(Entry& first, std::vector<Entry*>& share);
  void run_jobs(Worker& worker, const std::vector<Entry*>& jobs, std::unique_lock<std::mutex>& lock);
  std::optional<Message> answer(Worker& worker, ClientId client, const Message& task, const std::atomic<bool>& withdrawn);
  Arrival deliver(std::map<Key, Job>::iterator first, std::unique_lock<std::mutex>& lock);

  InProcessParts parts_;
  DeviceModel devices_;
  std::string codec_name_;
  std::function<std::unique_ptr<DevicePrivacy>()> make_privacy_;
  std::function<std::unique_ptr<SecureSession>(ClientId)> make_secure_;
  std::uint64_t secure_input_bytes_ = 0;
  std::uint32_t round_ = 0;                                          ///< of the sessions and of the sum
  std::map<ClientId, std::shared_ptr<SecureSession>> secure_;        ///< guarded by mutex_; each is used by one job at a time, which may outlive its round
  std::uint32_t closed_ = 0;                                         ///< the newest round that was closed
  std::map<ClientId, std::size_t> homes_;                            ///< of sessions: where the client's job of this round ran
  std::optional<UpdateSum> sum_;
  Elsewhere* elsewhere_ = nullptr;
  bool announced_ = true;             ///< whether elsewhere_ knows of all jobs
  std::unique_ptr<Trainer> planner_;  ///< answers examples_for() when a job is sent

  std::mutex mutex_;
  std::condition_variable work_ready_;
  std::condition_variable result_ready_;
  std::map<Key, Job> jobs_;
  std::set<std::pair<std::int64_t, Key>> longest_;   ///< queued jobs that sum, by falling cost (as a negative number)
  std::size_t queued_ = 0;                           ///< queued jobs that do not
  std::int64_t queued_cost_ = 0;                     ///< of both
  std::map<std::uint64_t, Key> lent_;                ///< by ticket
  std::deque<std::function<void(Worker&)>> actions_;
  std::deque<std::shared_ptr<SpareWork>> spare_;     ///< of lowest priority, the oldest first
  std::size_t idle_ = 0;                             ///< workers that wait for something to do
  std::function<void()> bell_;
  std::size_t held_ = 0;
  std::size_t window_;
  std::uint64_t sent_ = 0;
  Seconds now_ = 0;
  bool stopping_ = false;
  std::exception_ptr worker_error_;
  std::vector<std::thread> threads_;
};

}  // namespace fl
