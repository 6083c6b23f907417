#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/config/fields.h"

namespace fl::test {

/// One kind of trouble, and which bytes of which connections it strikes. Byte numbers count from 0 in one direction of one
/// connection.
struct FaultRule {
  std::optional<std::int64_t> connection;  ///< only this one, counted from 0 in order of arrival; nothing: every one
  double probability = 1;                  ///< that a connection is struck, drawn once for each
  std::string direction = "both";          ///< up (to the server), down, both
  double delay_ms = 0;
  double jitter_ms = 0;
  std::optional<double> bandwidth_bytes_s;
  std::int64_t slice_bytes = 0;            ///< 0: as they come
  std::optional<std::int64_t> reset_after_bytes;
  std::optional<std::int64_t> cut_after_bytes;
  std::optional<std::int64_t> half_open_after_bytes;
  std::optional<std::int64_t> corrupt_byte;
  std::vector<std::int64_t> duplicate_bytes;
  double slow_close_ms = 0;
  bool refuse = false;

  void fields(Fields& f);
};

/// What a FaultProxy does to the connections through it:
/// {"seed": 1, "rules": [{"connection": 0, "direction": "up", "reset_after_bytes": 100}, …]}. Every rule that fits a
/// connection strikes it. The seed decides everything that is left to chance, so a script is the same in every run.
struct FaultScript {
  std::int64_t seed = 1;
  std::vector<FaultRule> rules;
};

/// Throws ConfigError "SOURCE: rules.0.direction: …".
FaultScript parse_fault_script(const nlohmann::json& document, const std::string& source);

}  // namespace fl::test
