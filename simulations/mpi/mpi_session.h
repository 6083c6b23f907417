#pragma once

#include <memory>
#include <string>

#include "simulations/mpi/communicator.h"

namespace fl {

/// This process as one of those that mpirun (or srun) started, through MPI. One a process.
class MpiSession {
 public:
  /// Whether a launcher of MPI programs started this process. Costs nothing.
  static bool launched();

  MpiSession();
  ~MpiSession();

  Communicator& communicator();
  /// How many cores are this rank's, when the ranks of one machine share those that they may run on; at least 1.
  std::size_t cores() const;
  /// Takes leave of MPI. Without it the launcher takes this process for a dead one and ends the others: as it should after an error that kept
  /// ranks from saying good-bye.
  void finish();

 private:
  class MpiCommunicator;
  std::unique_ptr<MpiCommunicator> communicator_;
};

}  // namespace fl
