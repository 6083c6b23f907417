#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "simulations/pinning.h"

namespace CLI {
class App;
}

namespace fl::cli {

/// Whether each worker stays on a CPU of its own.
enum class Pinning : std::uint8_t {
  automatic,  ///< when the workers take all CPUs that they may run on: no other run is to be expected there
  on,
  off,
};

/// --pin auto|on|off.
void add_pin_option(CLI::App& command, Pinning& pinning);

/// The CPU of each worker of users[self], one of the processes of this run on this machine; empty: they roam. Throws ConfigError when they are
/// to be pinned and there are not enough CPUs; of several processes of a machine the first one does.
std::vector<int> worker_cpus(Pinning pinning, const std::vector<CpuUser>& users, std::size_t self);

/// What every worker's thread calls first (SimulationOptions::worker_setup): each caller gets the next of `cpus`, when there are any.
std::function<void()> worker_setup(const std::vector<int>& cpus);

}  // namespace fl::cli
