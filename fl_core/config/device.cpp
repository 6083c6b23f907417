#include "fl_core/config/device.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

/// "cuda" is 0, "cuda:12" is 12.
std::optional<int> gpu_of(const std::string& word) {
  const std::string type = "cuda";
  if (word == type) return 0;
  const std::size_t digits = word.size() - std::min(word.size(), type.size() + 1);
  if (!word.starts_with(type + ":") || digits < 1 || digits > 2) return std::nullopt;
  const std::string number = word.substr(type.size() + 1);
  if (number.find_first_not_of("0123456789") != std::string::npos || (number.size() > 1 && number[0] == '0')) return std::nullopt;
  return std::stoi(number);
}

}  // namespace

std::vector<int> gpus_of(const std::string& device, const std::string& path) {
  std::vector<int> gpus;
  if (device == "cpu") return gpus;
  for (std::size_t start = 0; start <= device.size();) {
    const std::size_t end = std::min(device.find(',', start), device.size());
    const auto gpu = gpu_of(device.substr(start, end - start));
    if (!gpu || std::find(gpus.begin(), gpus.end(), *gpu) != gpus.end()) {
      bad_value(path, device, "\"cpu\", \"cuda\", \"cuda:N\", or a list such as \"cuda:0,cuda:1\" that names each GPU once");
    }
    gpus.push_back(*gpu);
    start = end + 1;
  }
  return gpus;
}

std::string device_type(const std::string& device) { return device == "cpu" ? "cpu" : "cuda"; }

}  // namespace fl
