#include "simulations/cli/ranks.h"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "simulations/mpi/cluster.h"
#include "simulations/mpi/rank.h"
#ifdef FL_WITH_MPI
#include "simulations/mpi/mpi_session.h"
#endif

namespace fl::cli {
namespace {

/// A number in the environment; 0 where there is none.
unsigned long number_of(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::strtoul(text, nullptr, 10);
}

ExitCode alone(RunRequest& request, const std::function<ExitCode()>& body) {
  request.worker_cpus = worker_cpus(request.pinning, {{allowed_cpus(), request.workers}}, 0);
  return body();
}

}  // namespace

bool one_of_several() { return number_of("OMPI_COMM_WORLD_SIZE") > 1 || number_of("PMI_SIZE") > 1 || number_of("SLURM_STEP_NUM_TASKS") > 1; }

#ifdef FL_WITH_MPI

namespace {

ExitCode lead(MpiSession& session, RunRequest& request, const std::function<ExitCode()>& body) {
  Cluster cluster(session.communicator(), request.workers, stop_requested);
  request.cluster = &cluster;
  ExitCode code = ExitCode::ok;
  std::exception_ptr error;
  try {
    code = body();
  } catch (...) {
    error = std::current_exception();
  }
  const std::string silent = cluster.end();
  // Rank 0 has most to say; it leaves MPI only when nobody is missing, or the launcher would not end the others.
  if (silent.empty()) session.finish();
  if (!silent.empty() && (!error || stop_requested())) {
    throw IoError(silent + " did not say good-bye: it died, or its machine or the network did; finished rounds are kept, go on with: fl resume " + request.folder.string());
  }
  if (error) std::rethrow_exception(error);
  return code;
}

}  // namespace

ExitCode on_ranks(RunRequest& request, bool workers_given, const std::function<ExitCode()>& body) {
  if (!MpiSession::launched() && !one_of_several()) return alone(request, body);
  MpiSession session;
  Communicator& communicator = session.communicator();
  if (communicator.size() == 1 && number_of("SLURM_STEP_NUM_TASKS") > 1 && number_of("OMPI_COMM_WORLD_SIZE") == 0) {
    throw ConfigError("srun started " + std::to_string(number_of("SLURM_STEP_NUM_TASKS")) + " copies of fl that cannot reach each other; use 'srun --mpi=pmix fl …', or mpirun");
  }
  MpiSession::Neighbours here = session.neighbours(workers_given ? request.workers : 0);
  for (std::size_t i = 0; i < here.ranks.size(); ++i) {
    if (here.ranks[i].workers == 0) here.ranks[i].workers = share_of_cpus(here.ranks, i);
  }
  request.workers = here.ranks[here.self].workers;
  const auto lead_body = [&] {
    request.worker_cpus = worker_cpus(request.pinning, here.ranks, here.self);
    return body();
  };
  if (communicator.size() == 1) {
    const ExitCode code = lead_body();
    session.finish();
    return code;
  }
  watch_signals();
  if (communicator.rank() == 0) return lead(session, request, lead_body);
  const std::function<void()> setup = worker_setup(worker_cpus(request.pinning, here.ranks, here.self));
  serve_rank(communicator, {request.workers, versions().dump(), setup, stop_requested});
  session.finish();
  return ExitCode::ok;
}

#else

ExitCode on_ranks(RunRequest& request, bool, const std::function<ExitCode()>& body) {
  if (one_of_several()) {
    throw ConfigError("several copies of fl were started (by mpirun or srun), but this fl was built without MPI; install libopenmpi-dev and build again, or start one copy");
  }
  return alone(request, body);
}

#endif

}  // namespace fl::cli
