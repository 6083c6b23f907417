#include "client/participation_log.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"

namespace fl {

ParticipationLog::ParticipationLog(std::filesystem::path file) : file_(std::move(file)) {
  std::error_code absent;
  if (file_.empty() || !std::filesystem::exists(file_, absent)) return;
  const nlohmann::json document = read_json_file(file_);
  if (!document.is_object()) bad_value(file_.string(), document, "an object of counts; without it this device does not know what it has spent");
  for (const auto& [promise, count] : document.items()) {
    if (!count.is_number_unsigned()) {
      throw ConfigError(file_.string() + ": expected an object of counts; without it this device does not know what it has spent: restore it, or leave the federation");
    }
    used_[promise] = count.get<std::uint64_t>();
  }
}

std::uint64_t ParticipationLog::used(const std::string& promise) const {
  const auto place = used_.find(promise);
  return place == used_.end() ? 0 : place->second;
}

void ParticipationLog::add(const std::string& promise) {
  auto next = used_;
  ++next[promise];
  if (!file_.empty()) write_file_atomically(file_, nlohmann::json(next).dump() + "\n");
  used_ = std::move(next);
}

}  // namespace fl
