#pragma once

#include <cstdint>

namespace fl {

/// What this process holds in memory now, in bytes; 0 where the system does not say.
std::uint64_t resident_bytes();
/// The most that it ever held.
std::uint64_t peak_rss_bytes();
/// The machine's memory.
std::uint64_t machine_bytes();

}  // namespace fl
