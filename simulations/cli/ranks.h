#pragma once

#include <functional>

#include "fl_core/base/error.h"
#include "simulations/cli/command.h"

namespace fl::cli {

/// Whether a launcher of MPI programs (mpirun, srun) started several copies of this program, as far as its environment tells.
bool one_of_several();

/// Runs `body`, or what this process is for under mpirun: rank 0 runs `body` with request.cluster set, the others do its jobs. `workers_given`:
/// the user said how many workers a rank has; otherwise they are the rank's share of its machine's cores. Chooses the workers' CPUs. Throws ConfigError under mpirun
/// where this fl was built without MPI: copies that know nothing of each other would fight for one folder.
ExitCode on_ranks(RunRequest& request, bool workers_given, const std::function<ExitCode()>& body);

}  // namespace fl::cli
