#include "fl_core/base/memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

namespace fl {
namespace {

std::uint64_t page_bytes() { return static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE)); }

}  // namespace

std::uint64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");  // proc(5): total size, then resident, in pages
  std::uint64_t total = 0;
  std::uint64_t resident = 0;
  return file >> total >> resident ? resident * page_bytes() : 0;
}

std::uint64_t peak_rss_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

std::uint64_t machine_bytes() { return static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * page_bytes(); }

}  // namespace fl
