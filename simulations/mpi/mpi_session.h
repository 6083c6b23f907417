#pragma once

#include <memory>
#include <string>
#include <vector>

#include "simulations/mpi/communicator.h"
#include "simulations/pinning.h"

namespace fl {

/// This process as one of those that mpirun (or srun) started, through MPI. One a process.
class MpiSession {
 public:
  /// Whether a launcher of MPI programs started this process. Costs nothing.
  static bool launched();

  MpiSession();
  ~MpiSession();

  Communicator& communicator();
  /// The ranks of this machine, each with its `workers`; `self` is this one's place among them. All ranks call it together.
  struct Neighbours {
    std::vector<CpuUser> ranks;
    std::size_t self = 0;
  };
  Neighbours neighbours(std::size_t workers) const;
  /// Takes leave of MPI. Without it the launcher takes this process for a dead one and ends the others: as it should after an error that kept
  /// ranks from saying good-bye.
  void finish();

 private:
  class MpiCommunicator;
  std::unique_ptr<MpiCommunicator> communicator_;
};

}  // namespace fl
