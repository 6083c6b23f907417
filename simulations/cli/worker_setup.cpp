#include "simulations/cli/worker_setup.h"

#include <CLI/CLI.hpp>
#include <atomic>
#include <map>
#include <memory>
#include <numeric>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/ml/torch_runtime.h"

namespace fl::cli {

void add_pin_option(CLI::App& command, Pinning& pinning) {
  static const std::map<std::string, Pinning> kNames = {{"auto", Pinning::automatic}, {"on", Pinning::on}, {"off", Pinning::off}};
  command
      .add_option_function<std::string>("--pin", [&pinning](const std::string& name) { pinning = kNames.at(name); },
                                        "Keep each worker on a core of its own: auto (when there is a worker for every core), on, off; default: off")
      ->type_name("WHEN")
      ->check(CLI::IsMember(kNames));
}

std::vector<int> worker_cpus(Pinning pinning, const std::vector<CpuUser>& users, std::size_t self) {
  if (pinning == Pinning::off || (pinning == Pinning::automatic && !take_all_cpus(users))) return {};
  const std::vector<std::vector<int>> assigned = assign_cpus(users, cores_of_this_machine());
  if (!assigned.empty()) return assigned[self];
  if (pinning == Pinning::on && self == 0) {
    const auto add = [](std::size_t sum, const CpuUser& user) { return sum + user.workers; };
    throw ConfigError("--pin on: got " + std::to_string(std::accumulate(users.begin(), users.end(), std::size_t{0}, add)) +
                      " workers on this machine, expected a core for each of them (this process may use " + std::to_string(users[0].cpus.size()) +
                      "); use fewer --workers, or --pin off");
  }
  return {};
}

std::function<void()> worker_setup(const std::vector<int>& cpus) {
  const auto next = std::make_shared<std::atomic<std::size_t>>(0);
  return [cpus, next] {
    // A system that refuses costs speed, not results.
    if (const std::size_t i = (*next)++; i < cpus.size()) pin_this_thread(cpus[i]);
    limit_threads_of_this_worker();
  };
}

}  // namespace fl::cli
