#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <vector>

namespace fl {

/// Parses JSON text. Duplicate keys, nesting deeper than 64 and syntax errors are ConfigErrors "source:line:column: …".
nlohmann::json parse_json(const std::string& text, const std::string& source);
/// Reads and parses a file of at most 4 MiB.
nlohmann::json read_json_file(const std::filesystem::path& path);

/// Applies one "a.b.0.c=value" to a document; numbers name places in a list. The value is JSON, or else a plain string.
/// Objects on the way are made when absent. Throws ConfigError.
void apply_setting(nlohmann::json& document, const std::string& setting);

/// A ConfigError in the house's form: `path: got value, expected …`.
[[noreturn]] void bad_value(const std::string& path, const nlohmann::json& value, const std::string& expected);

/// "; did you mean 'x'?" for the nearest candidate by edit distance, or a list of all when none is near.
std::string nearest_hint(const std::string& word, std::span<const std::string> candidates);

/// "a" + "b" -> "a.b"; an empty parent gives the key alone.
std::string join_path(const std::string& parent, const std::string& key);

/// A value as it is shown in an error: JSON, cut after 60 characters.
std::string shown(const nlohmann::json& value);

}  // namespace fl
