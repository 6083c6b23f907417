#pragma once

#include <cstddef>
#include <string>

namespace fl {

/// `bytes` from OpenSSL's generator as lower-case hexadecimal digits: identities that nobody can guess. Never for anything
/// that a run's bits depend on. Throws Error when the system has no randomness.
std::string random_hex(std::size_t bytes);

}  // namespace fl
