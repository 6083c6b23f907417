#include "simulations/cli/report_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace fl::report {
namespace {

constexpr const char* kNarrowSpace = "\u202f";

/// Bytes of the valid UTF-8 sequence at `text[at]`, 0 when it is none (overlong, surrogate, out of range, cut off).
std::size_t sequence_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || at + length > text.size()) return 0;
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(at + i) & 0xC0) != 0x80) return 0;
  }
  const unsigned char second = byte(at + 1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F)) return 0;
  if ((lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F)) return 0;
  return length;
}

std::string not_finite(double value) { return std::isnan(value) ? "NaN" : value > 0 ? "∞" : "−∞"; }

std::string with_minus_sign(std::string text) {
  if (!text.empty() && text[0] == '-') text.replace(0, 1, "−");
  return text;
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t length = sequence_length(text, i);
    const char c = text[i];
    if (length == 0 || (length == 1 && static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7F) {
      out += "\uFFFD";
      ++i;
      continue;
    }
    const std::string_view sequence = text.substr(i, length);
    i += length;
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (c == '\'')
      out += "&#39;";
    else if (sequence == "\uFFFE" || sequence == "\uFFFF")
      out += "\uFFFD";  // valid UTF-8, but not in XML
    else
      out += sequence;
  }
  return out;
}

std::string raw(double value) {
  std::array<char, 64> text{};
  return std::string(text.data(), std::to_chars(text.data(), text.data() + text.size(), value).ptr);
}

std::string number(double value, int digits) {
  if (!std::isfinite(value)) return not_finite(value);
  if (std::fabs(value) >= std::pow(10.0, digits) && std::fabs(value) < 1e7) return fixed(value, 0);  // not 1.235e+04
  std::array<char, 64> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::general, digits).ptr;
  return with_minus_sign(std::string(text.data(), end));
}

std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return not_finite(value);
  if (std::fabs(value) >= 1e15) return number(value);
  std::array<char, 64> text{};
  const auto end = std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, decimals).ptr;
  return with_minus_sign(std::string(text.data(), end));
}

std::string count(double value) {
  if (!std::isfinite(value) || std::fabs(value) >= 1e15) return number(value);
  std::string digits = fixed(std::fabs(std::round(value)), 0);
  for (std::size_t at = digits.size(); at > 3;) {
    at -= 3;
    digits.insert(at, kNarrowSpace);
  }
  return (value <= -0.5 ? "−" : "") + digits;
}

std::string percent(double share) {
  return std::isfinite(share) ? fixed(share * 100, 2) + kNarrowSpace + "%" : not_finite(share);
}

std::string bytes(double value) {
  if (!std::isfinite(value)) return not_finite(value);
  constexpr std::array<const char*, 7> kUnits = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
  std::size_t unit = 0;
  while (std::fabs(value) >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return (unit == 0 ? count(value) : number(value, 3)) + kNarrowSpace + kUnits[unit];
}

std::string duration(double seconds) {
  if (!std::isfinite(seconds)) return not_finite(seconds);
  if (seconds < 99.5) return number(seconds, 3) + kNarrowSpace + "s";
  const double whole = std::round(seconds);
  const auto part = [](double value, const char* unit) { return count(value) + kNarrowSpace + unit; };
  if (whole < 3600) return part(std::floor(whole / 60), "min") + " " + part(std::fmod(whole, 60), "s");
  return part(std::floor(whole / 3600), "h") + " " + part(std::floor(std::fmod(whole, 3600) / 60), "min");
}

std::string in_unit(double value, Unit unit) {
  switch (unit) {
    case Unit::plain:
      return number(value);
    case Unit::count:
      return count(value);
    case Unit::percent:
      return percent(value);
    case Unit::bytes:
      return bytes(value);
    case Unit::seconds:
      return duration(value);
  }
  return number(value);
}

const nlohmann::json* find(const nlohmann::json& document, std::string_view path) {
  const nlohmann::json* place = &document;
  while (!path.empty()) {
    const std::string key(path.substr(0, path.find('.')));
    path.remove_prefix(std::min(path.size(), key.size() + 1));
    if (!place->is_object()) return nullptr;
    const auto found = place->find(key);
    if (found == place->end()) return nullptr;
    place = &*found;
  }
  return place;
}

std::optional<double> number_at(const nlohmann::json& document, std::string_view path) {
  const nlohmann::json* value = find(document, path);
  if (value == nullptr || !value->is_number()) return std::nullopt;
  return value->get<double>();
}

std::string text_at(const nlohmann::json& document, std::string_view path) {
  const nlohmann::json* value = find(document, path);
  if (value == nullptr || value->is_null()) return "";
  return value->is_string() ? value->get<std::string>() : dump(*value);
}

std::string dump(const nlohmann::json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string shortened(const std::string& text, std::size_t length) {
  std::size_t characters = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool starts_one = (static_cast<unsigned char>(text[i]) & 0xC0) != 0x80;
    if (starts_one && ++characters == length) {
      // Cut here only if another character follows.
      std::size_t next = i + 1;
      while (next < text.size() && (static_cast<unsigned char>(text[next]) & 0xC0) == 0x80) ++next;
      return next == text.size() ? text : text.substr(0, i) + "…";
    }
  }
  return text;
}

}  // namespace fl::report
