#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "simulations/mpi/communicator.h"

namespace fl::test {

/// Ranks as threads of one process: the communicators of a group that share memory instead of using MPI.
class LocalRanks {
 public:
  explicit LocalRanks(std::size_t size);
  /// Of one rank; as many threads may use different ones as there are. Borrowed from this.
  Communicator& rank(std::size_t number) { return *communicators_[number]; }
  /// How often rank 0 gave bytes to all.
  std::size_t broadcasts() const;

 private:
  class One;
  struct Collective {
    std::vector<std::byte> bytes;     ///< of a broadcast
    std::vector<std::int64_t> total;  ///< of a sum
    std::size_t joined = 0;
  };

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::deque<Communicator::Received>> inboxes_;
  std::map<std::uint64_t, Collective> collectives_;  ///< by their number
  std::size_t broadcasts_ = 0;
  std::vector<std::unique_ptr<Communicator>> communicators_;
};

}  // namespace fl::test
