#include "tests/net_support/net/fault_script.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"

namespace fl::test {
namespace {

constexpr std::int64_t kLargest = std::numeric_limits<std::int64_t>::max();
constexpr double kLongest_ms = 3'600'000;

}  // namespace

void FaultRule::fields(Fields& f) {
  f.optional_integer("connection", connection, {0, kLargest}, "the connection it strikes, in order of arrival; null: every one");
  f.number("probability", probability, {0, 1}, "that it strikes a connection");
  f.choice("direction", direction, {"up", "down", "both"}, "up is to the server");
  f.number("delay_ms", delay_ms, {0, kLongest_ms}, "each piece is held for this long", "ms");
  f.number("jitter_ms", jitter_ms, {0, kLongest_ms}, "each piece is held for up to this much longer", "ms");
  f.optional_number("bandwidth_bytes_s", bandwidth_bytes_s, {0, 1e12, true}, "most bytes a second", "bytes/s");
  f.integer("slice_bytes", slice_bytes, {0, 1 << 20}, "most bytes in one piece; 0: as they come", "bytes");
  f.optional_integer("reset_after_bytes", reset_after_bytes, {0, kLargest}, "both ends get a reset after this many bytes", "bytes");
  f.optional_integer("cut_after_bytes", cut_after_bytes, {0, kLargest}, "both ends get an orderly end after this many bytes", "bytes");
  f.optional_integer("half_open_after_bytes", half_open_after_bytes, {0, kLargest},
                     "nothing passes any more in either direction, and nobody is told", "bytes");
  f.optional_integer("corrupt_byte", corrupt_byte, {0, kLargest}, "one bit of this byte is flipped");
  f.integers("duplicate_bytes", duplicate_bytes, 0, {0, 1 << 20}, "[from, count]: these bytes pass twice in a row");
  f.number("slow_close_ms", slow_close_ms, {0, kLongest_ms}, "the end of a direction is passed on this much later", "ms");
  f.flag("refuse", refuse, "the connection is reset as soon as it is there");
}

FaultScript parse_fault_script(const nlohmann::json& document, const std::string& source) {
  try {
    FaultScript script;
    nlohmann::json rules = nlohmann::json::array();
    read_fields(document, "", [&](Fields& f) {
      f.integer("seed", script.seed, {0, kLargest}, "decides what is left to chance");
      f.raw("rules", rules, "a list of rules", "what goes wrong");
    });
    if (!rules.is_array()) bad_value("rules", rules, "a list of rules [{…}, …]");
    for (std::size_t i = 0; i < rules.size(); ++i) {
      const std::string path = "rules." + std::to_string(i);
      FaultRule& rule = script.rules.emplace_back();
      read_fields(rules[i], path, [&](Fields& f) { rule.fields(f); });
      const auto& twice = rule.duplicate_bytes;
      if (!twice.empty() && (twice.size() != 2 || twice[1] < 1)) {
        bad_value(path + ".duplicate_bytes", twice, "[from, count] with a count of at least 1");
      }
    }
    return script;
  } catch (const ConfigError& error) {
    throw ConfigError(source + ": " + error.what());
  }
}

}  // namespace fl::test
