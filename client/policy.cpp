#include "client/policy.h"

#include <array>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

std::string first_word(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string word;
  file >> word;
  return word;
}

int system_hour() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  ::localtime_r(&now, &local);
  return local.tm_hour;
}

}  // namespace

void ClientLimits::fields(Fields& f) {
  f.integer("threads", threads, {1, 1024}, "threads that training may use; with more than one the last bits of a result may depend on them");
  f.optional_integer("memory_mb", memory_mb, {16, INT64_C(1) << 24}, "a plan that needs more is refused; null: what the machine has", "MB");
  f.integer("cache_mb", cache_mb, {0, INT64_C(1) << 24}, "models kept in the state folder, so that they are not sent twice", "MB");
  f.text("hours", hours, "local hours in which training is allowed, \"22-6\"; empty: always");
  f.flag("mains_power", mains_power, "train only while the machine does not run on its battery");
  f.optional_number("max_load", max_load, {0, 1e6}, "train only while the other programs' load is at most this (1-minute average); null: always");
}

TrainingPolicy::TrainingPolicy(const ClientLimits& limits, PolicySources sources) : limits_(limits), sources_(std::move(sources)) {
  if (!sources_.local_hour) sources_.local_hour = system_hour;
  if (limits_.hours.empty()) return;
  int used = 0;
  const bool read = std::sscanf(limits_.hours.c_str(), "%2d-%2d%n", &first_hour_, &last_hour_, &used) == 2;
  if (!read || static_cast<std::size_t>(used) != limits_.hours.size() || first_hour_ < 0 || first_hour_ > 23 || last_hour_ < 0 ||
      last_hour_ > 24 || first_hour_ == last_hour_) {
    bad_value("limits.hours", limits_.hours, "two different hours such as \"22-6\" or \"0-24\", or \"\" for always");
  }
}

bool TrainingPolicy::in_hours() const {
  if (limits_.hours.empty()) return true;
  const int hour = sources_.local_hour();
  if (first_hour_ < last_hour_) return hour >= first_hour_ && hour < last_hour_;
  return hour >= first_hour_ || hour < last_hour_;
}

bool TrainingPolicy::on_mains() const {
  bool has_battery = false;
  std::error_code error;
  // A supply may vanish while the folder is read, so no step may throw.
  std::filesystem::directory_iterator supply(sources_.power_supplies, error);
  for (; !error && supply != std::filesystem::directory_iterator(); supply.increment(error)) {
    const std::filesystem::path& path = supply->path();
    if (first_word(path / "type") == "Battery") {
      // The battery of a mouse says nothing about the machine.
      has_battery = has_battery || first_word(path / "scope") != "Device";
    } else if (first_word(path / "online") == "1") {
      return true;
    }
  }
  return !has_battery;
}

std::optional<double> TrainingPolicy::load() const {
  std::ifstream file(sources_.load);
  double value = 0;
  return file >> value ? std::optional<double>(value) : std::nullopt;
}

Permission TrainingPolicy::check(bool training) const {
  if (!in_hours()) return {false, "outside of the allowed hours " + limits_.hours};
  if (limits_.mains_power && !on_mains()) return {false, "on battery power"};
  if (limits_.max_load) {
    const double own = training ? static_cast<double>(limits_.threads) : 0;
    const auto now = load();
    if (now && *now - own > *limits_.max_load) {
      std::array<char, 96> text{};
      std::snprintf(text.data(), text.size(), "load %.2f is above the limit %.2f", *now, *limits_.max_load);
      return {false, text.data()};
    }
  }
  return {};
}

}  // namespace fl
