#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "aggregator/engine/pending_evaluation.h"
#include "simulations/in_process.h"
#include "simulations/mpi/communicator.h"
#include "simulations/mpi/letters.h"
#include "simulations/mpi/patience.h"

namespace fl {

/// What the other ranks must know of a run beside the experiment.
struct ClusterRun {
  bool sums = false;              ///< updates may be added up where they are made
  std::size_t parameters = 0;
  std::uint64_t max_updates = 1;
  int bound_bits = ExactSum::kDefaultBoundBits;
  std::string plan;               ///< plan_text() with the run's promise; empty without a promise
};

/// Rank 0's view of the other ranks of `mpirun`: it gives them jobs of the transport, brings back what came of them, adds up the sums of all
/// ranks, and shares the test set out. The other ranks are workers and nothing else (rank.h): engine, privacy, journal and console are here, so
/// that no feature needs to know how many ranks there are.
///
/// A thread of its own does all communication. The public functions are for the engine's thread; those that wait throw what befell a rank, and
/// Interrupted when asked to stop.
class Cluster final : public Elsewhere {
 public:
  /// `communicator` is borrowed; this is its rank 0. `should_stop` is called from several threads.
  Cluster(Communicator& communicator, std::size_t workers, std::function<bool()> should_stop);
  ~Cluster() override;

  /// Tells all ranks what to load. `source`: the experiment's file, for errors.
  void announce(const std::string& document, const std::string& source, const std::string& version);
  /// Waits until all ranks have loaded their data. Throws a rank's error, and ConfigError where a rank has other data.
  void await_ready(const std::string& data_fingerprint);
  /// "rank 1 on node7: 4 workers, …"
  std::string description() const;
  /// Of all ranks, this one included.
  std::size_t workers() const;
  std::size_t ranks() const { return peers_.size() + 1; }

  /// The others start their workers and take jobs. `in_process` is borrowed until leave().
  void start(InProcess& in_process, const ClusterRun& run);
  void leave();
  /// Begins to measure `weights` on parts 0 … parts - 1 of the test set; `ours` begins with [first, first + count) here. One at a time, and over
  /// before leave().
  std::unique_ptr<PendingEvaluation> begin_evaluation(const SharedBuffer& weights, std::size_t parts,
                                                      const std::function<std::unique_ptr<PendingEvaluation>(std::size_t first, std::size_t count)>& ours);
  /// Ends all ranks. Returns those that did not answer, in words; empty when all is well. Call it once, last.
  std::string end();

  void jobs_changed() override;
  void withdraw(std::uint32_t round) override;
  PartialSum gather(std::uint32_t round, const ExactSum& ours) override;

 private:
  class Measuring;
  struct Peer {
    std::string host;
    std::size_t workers = 0;
    std::string data;               ///< fingerprint
    bool ready = false;
    bool bye = false;
    std::size_t outstanding = 0;    ///< jobs that it has
    std::size_t granted = 0;        ///< jobs of the newest grant
    Watch::Clock::duration heard{};
  };

  bool gives_up();
  void report(std::exception_ptr error);
  void communicate();
  void turn();
  void receive(std::size_t from, LetterReader letter);
  void check_silence();
  bool lend_to(std::size_t rank);
  bool have(const SharedBuffer& weights);
  void send_weights(const SharedBuffer& weights);
  void post_to_all(const LetterWriter& letter);
  std::string name_of(std::size_t rank) const;

  /// Has the thread run an action.
  void command(std::function<void()> action);
  /// Waits until `done` holds, on the engine's thread; `done` is asked under mutex_.
  void wait_until(const std::function<bool()>& done);

  Communicator& communicator_;
  std::size_t own_workers_;
  std::function<bool()> should_stop_;

  mutable std::mutex mutex_;
  std::condition_variable wake_;      ///< the thread
  std::condition_variable progress_;  ///< whoever waits for it
  std::deque<std::function<void()>> commands_;
  bool jobs_ = false;                 ///< there may be jobs to lend
  std::vector<Peer> peers_;           ///< ranks 1, 2, …
  std::exception_ptr error_;          ///< ended the work
  std::size_t summing_ = 0;           ///< letters `summed` that are still to come, and the sum
  std::size_t measuring_ = 0;         ///< letters `measured` that are still to come
  Evaluation measured_;
  std::uint64_t terms_ = 0;
  std::uint64_t weight_ = 0;
  std::optional<Watch::Clock::time_point> ending_;  ///< until when ranks may still say something
  bool stop_thread_ = false;
  bool thread_is_over_ = false;

  // The thread's own.
  InProcess* in_process_ = nullptr;
  SharedBuffer weights_;              ///< what all ranks have
  AlignedArray<std::int64_t> total_;
  Watch watch_;
  Patience patience_;
  std::thread thread_;
};

}  // namespace fl
