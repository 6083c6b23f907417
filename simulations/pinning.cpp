#include "simulations/pinning.h"

#include <sched.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <set>
#include <string>

namespace fl {
namespace {

bool may_use(const CpuUser& user, int cpu) { return std::binary_search(user.cpus.begin(), user.cpus.end(), cpu); }

/// CPUs that nobody has yet, and cores of which nobody has a thread.
class FreeCpus {
 public:
  explicit FreeCpus(const CoreOfCpu& core_of) : core_of_(core_of) {}

  std::optional<int> take(const CpuUser& user) {
    std::optional<int> best;
    std::size_t fewest = 0;
    for (const int cpu : user.cpus) {
      if (taken_.contains(cpu)) continue;
      const auto found = threads_.find(core_of(cpu));
      const std::size_t threads = found == threads_.end() ? 0 : found->second;
      if (best && threads >= fewest) continue;
      best = cpu;
      fewest = threads;
    }
    if (best) {
      taken_.insert(*best);
      ++threads_[core_of(*best)];
    }
    return best;
  }

 private:
  int core_of(int cpu) const {
    const auto found = core_of_.find(cpu);
    return found == core_of_.end() ? cpu : found->second;
  }

  const CoreOfCpu& core_of_;
  std::set<int> taken_;
  std::map<int, std::size_t> threads_;  ///< taken, by core
};

}  // namespace

std::size_t share_of_cpus(const std::vector<CpuUser>& users, std::size_t self) {
  double share = 0;
  for (const int cpu : users[self].cpus) {
    share += 1.0 / static_cast<double>(std::count_if(users.begin(), users.end(), [&](const CpuUser& user) { return may_use(user, cpu); }));
  }
  return std::max<std::size_t>(1, static_cast<std::size_t>(share + 1e-6));
}

std::vector<std::vector<int>> assign_cpus(const std::vector<CpuUser>& users, const CoreOfCpu& core_of) {
  FreeCpus free(core_of);
  std::vector<std::vector<int>> assigned(users.size());
  for (std::size_t i = 0; i < users.size(); ++i) {
    while (assigned[i].size() < users[i].workers) {
      const std::optional<int> cpu = free.take(users[i]);
      if (!cpu) return {};
      assigned[i].push_back(*cpu);
    }
  }
  return assigned;
}

bool take_all_cpus(const std::vector<CpuUser>& users) {
  std::set<int> cpus;
  std::size_t workers = 0;
  for (const CpuUser& user : users) {
    cpus.insert(user.cpus.begin(), user.cpus.end());
    workers += user.workers;
  }
  return workers >= cpus.size();
}

std::vector<int> allowed_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

int first_of_cpu_list(const char* text) {
  char* end = nullptr;
  const long first = std::strtol(text, &end, 10);
  const bool list = end != text && (*end == '\0' || *end == ',' || *end == '-');
  return list && first >= 0 && first < CPU_SETSIZE ? static_cast<int>(first) : -1;
}

CoreOfCpu cores_of_this_machine() {
  CoreOfCpu cores;
  for (const int cpu : allowed_cpus()) {
    std::ifstream file("/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list");
    std::string siblings;
    if (!std::getline(file, siblings)) continue;
    // Siblings have the same list, so its first number names their core.
    if (const int first = first_of_cpu_list(siblings.c_str()); first >= 0) cores[cpu] = first;
  }
  return cores;
}

bool pin_this_thread(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  return ::sched_setaffinity(0, sizeof set, &set) == 0;
}

}  // namespace fl
