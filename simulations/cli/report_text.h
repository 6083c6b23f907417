#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

/// Text for the report: escaping, numbers as people read them, lookups in JSON that nobody checked.
namespace fl::report {

/// How a number is written.
enum class Unit { plain, count, percent, bytes, seconds };

/// Text for HTML, SVG and attribute values. Invalid UTF-8 and control characters become U+FFFD.
std::string escape(std::string_view text);

/// The shortest decimal form that a program reads back exactly; ASCII.
std::string raw(double value);
/// `value` with `digits` significant digits, without trailing zeros; "NaN", "∞", "−∞".
std::string number(double value, int digits = 4);
/// A fixed number of decimals.
std::string fixed(double value, int decimals);
/// Rounded, in groups of three: "12 345".
std::string count(double value);
/// A share in [0, 1]: "84.93 %".
std::string percent(double share);
/// Powers of 1000: "1.23 GB".
std::string bytes(double value);
/// "0.52 s", "1 min 52 s", "2 h 5 min".
std::string duration(double seconds);
std::string in_unit(double value, Unit unit);

/// The member at "a.b.c", or nullptr.
const nlohmann::json* find(const nlohmann::json& document, std::string_view path);
std::optional<double> number_at(const nlohmann::json& document, std::string_view path);
/// A string as it is, anything else as JSON; empty when absent or null. Not escaped.
std::string text_at(const nlohmann::json& document, std::string_view path);
/// JSON text; invalid UTF-8 in it is replaced. Not escaped.
std::string dump(const nlohmann::json& value, int indent = -1);
/// At most `length` characters, the last one an ellipsis where something was cut.
std::string shortened(const std::string& text, std::size_t length);

}  // namespace fl::report
