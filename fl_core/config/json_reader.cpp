#include "fl_core/config/json_reader.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"

namespace fl {
namespace {

using nlohmann::json;

constexpr int kDepthLimit = 64;
constexpr std::uint64_t kFileLimitBytes = 4U << 20U;

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = above;
    }
  }
  return row[b.size()];
}

bool is_utf8(const std::string& text) {
  try {
    json(text).dump();
    return true;
  } catch (const json::type_error&) {
    return false;
  }
}

/// "line:column" of the `byte`-th byte, counted from 1 as nlohmann::json does.
std::string position(const std::string& text, std::size_t byte) {
  const std::size_t index = std::min(byte == 0 ? 0 : byte - 1, text.size());
  const auto line = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(index), '\n') + 1;
  const auto last_newline = index == 0 ? std::string::npos : text.rfind('\n', index - 1);
  const std::size_t column = last_newline == std::string::npos ? index + 1 : index - last_newline;
  return std::to_string(line) + ":" + std::to_string(column);
}

}  // namespace

json parse_json(const std::string& text, const std::string& source) {
  if (text.find_first_not_of(" \t\r\n") == std::string::npos) throw ConfigError(source + ":1:1: not valid JSON: it is empty; expected an object {…}");
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    const bool opens = event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
    if (opens && depth >= kDepthLimit) {
      throw ConfigError(source + ": nested deeper than " + std::to_string(kDepthLimit) + " levels");
    }
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      throw ConfigError(source + ": the key '" + parsed.get<std::string>() + "' appears twice in one object; remove one");
    }
    return true;
  };
  try {
    return json::parse(text, watch);
  } catch (const json::parse_error& error) {
    std::string reason = error.what();
    const auto colon = reason.find("column ");
    const auto start = colon == std::string::npos ? std::string::npos : reason.find(": ", colon);
    if (start != std::string::npos) reason = reason.substr(start + 2);
    throw ConfigError(source + ":" + position(text, error.byte) + ": not valid JSON: " + reason);
  } catch (const json::out_of_range&) {
    // The only one that parsing throws: a number beyond double, such as 1e999.
    throw ConfigError(source + ": a number is too large; expected one below 1.8e308");
  }
}

json read_json_file(const std::filesystem::path& path) {
  std::error_code ignored;  // what cannot be seen is reported by the reading below
  const auto kind = std::filesystem::status(path, ignored).type();
  if (kind == std::filesystem::file_type::not_found || kind == std::filesystem::file_type::directory) {
    throw ConfigError(path.string() + (kind == std::filesystem::file_type::directory ? ": is a folder" : ": no such file") +
                      "; expected an experiment in JSON (see simulations/experiments/)");
  }
  return parse_json(read_text_file(path, kFileLimitBytes), path.string());
}

void apply_setting(json& document, const std::string& setting) {
  const auto equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw ConfigError("--set " + setting + ": expected path=value, for example --set trainer.epochs=5");
  }
  const std::string path = setting.substr(0, equals);
  const std::string text = setting.substr(equals + 1);
  if (!is_utf8(setting)) throw ConfigError("--set " + shown(json(setting)) + ": expected text in UTF-8");
  json value = json::accept(text) ? parse_json(text, "--set " + path) : json(text);

  json* place = &document;
  std::size_t start = 0;
  std::string walked;
  while (start <= path.size()) {
    const auto dot = std::min(path.find('.', start), path.size());
    const std::string key = path.substr(start, dot - start);
    start = dot + 1;
    if (key.empty()) throw ConfigError("--set " + setting + ": a part of the path is empty");
    if (place->is_null()) *place = json::object();
    if (place->is_array()) {
      const bool digits = std::all_of(key.begin(), key.end(), [](char c) { return c >= '0' && c <= '9'; });
      const std::size_t index = digits && key.size() < 6 ? std::stoul(key) : place->size();
      if (index >= place->size()) {
        throw ConfigError("--set " + setting + ": " + walked + " is a list of " + std::to_string(place->size()) +
                          "; expected an index below that, got '" + key + "'");
      }
      place = &(*place)[index];
    } else if (place->is_object()) {
      place = &(*place)[key];
    } else {
      throw ConfigError("--set " + setting + ": " + walked + " is " + shown(*place) + ", which has no keys");
    }
    walked = join_path(walked, key);
  }
  *place = std::move(value);
}

void bad_value(const std::string& path, const json& value, const std::string& expected) {
  throw ConfigError(path + ": got " + shown(value) + ", expected " + expected);
}

std::string nearest_hint(const std::string& word, std::span<const std::string> candidates) {
  const std::string* best = nullptr;
  std::size_t best_distance = 0;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(word, candidate);
    if (best == nullptr || distance < best_distance) {
      best = &candidate;
      best_distance = distance;
    }
  }
  if (best == nullptr) return "";
  // Two edits make anything of two letters: at least one letter must have been right.
  const bool near = best_distance <= std::max<std::size_t>(2, word.size() / 3) && best_distance < std::max(word.size(), best->size());
  if (near) return "; did you mean '" + *best + "'?";
  std::string all = "; known: ";
  for (std::size_t i = 0; i < candidates.size(); ++i) all += (i == 0 ? "" : ", ") + candidates[i];
  return all;
}

std::string join_path(const std::string& parent, const std::string& key) {
  return parent.empty() ? key : parent + "." + key;
}

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

}  // namespace fl
