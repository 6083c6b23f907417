#pragma once

#include <string>
#include <vector>

namespace fl {

/// The numbers of the GPUs that a "device" key names, in its order: none for "cpu", {0} for "cuda", {0, 2} for "cuda:0,cuda:2". Says nothing
/// about whether they exist. Throws ConfigError that begins with `path` for any other spelling, and where a GPU is named twice.
std::vector<int> gpus_of(const std::string& device, const std::string& path);

/// What the bits of a result depend on: "cpu" or "cuda", whatever the number.
std::string device_type(const std::string& device);

}  // namespace fl
