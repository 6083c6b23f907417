#pragma once

#include <functional>
#include <string>

#include "simulations/mpi/communicator.h"

namespace fl {

struct RankOptions {
  std::size_t workers = 1;
  std::string version;                 ///< of this build: rank 0's must be the same
  std::function<void()> worker_setup;  ///< as in SimulationOptions
  std::function<bool()> should_stop;   ///< likewise
};

/// What a rank other than 0 does: loads the experiment that rank 0 sends, runs the jobs that it gives, adds up what it may, and answers, until
/// rank 0 says that all is over. What goes wrong here is rank 0's to say. Throws IoError when rank 0 is gone.
void serve_rank(Communicator& communicator, const RankOptions& options);

}  // namespace fl
