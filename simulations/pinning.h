#pragma once

#include <cstddef>
#include <map>
#include <vector>

namespace fl {

/// One of the processes that share a machine, as far as its CPUs matter.
struct CpuUser {
  std::vector<int> cpus;    ///< numbers of those that it may run on, ascending
  std::size_t workers = 0;  ///< threads that each want one for themselves
};

/// CPU -> the physical core that it is a thread of. One that is missing is a core of its own.
using CoreOfCpu = std::map<int, int>;

/// How many CPUs are users[self]'s, when those that several may run on are divided among them; at least 1.
std::size_t share_of_cpus(const std::vector<CpuUser>& users, std::size_t self);

/// A CPU for each worker of each user, no CPU twice, threads of cores that nobody has first. Empty when they do not suffice for everybody:
/// pinning some beside others that roam would be worse than leaving it to the system. Every process of a machine that asks with the same
/// users gets the same answer.
std::vector<std::vector<int>> assign_cpus(const std::vector<CpuUser>& users, const CoreOfCpu& core_of);

/// Whether the workers leave none of the CPUs idle that their processes may run on.
bool take_all_cpus(const std::vector<CpuUser>& users);

/// Those that the calling thread may run on, ascending; empty where the system does not tell.
std::vector<int> allowed_cpus();
/// This machine's, from /sys; empty where the system does not tell.
CoreOfCpu cores_of_this_machine();
/// The first number of a list as /sys writes it: 2 of "2,34" and of "2-3"; -1 of anything else.
int first_of_cpu_list(const char* text);
/// From now on the calling thread runs on this CPU only. False when the system refuses.
bool pin_this_thread(int cpu);

}  // namespace fl
