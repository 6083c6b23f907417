#pragma once

#include <cctype>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "fl_core/config/registry.h"

namespace fl::test {

/// Every component of a kind with its default options, and again with every other value of each "one of …" option: what
/// a contract suite runs over, so that a new component, or a new choice of one, is tested without an edit.
inline std::vector<nlohmann::json> variants(const ComponentKind& kind) {
  std::vector<nlohmann::json> all;
  for (const std::string& name : kind.names()) {
    all.push_back({{"name", name}});
    const nlohmann::json schema = kind.describe(name);
    for (const auto& [key, entry] : schema.items()) {
      std::istringstream words(entry.value("type", ""));
      std::string one;
      std::string of;
      words >> one >> of;
      if (one != "one" || of != "of") continue;
      for (std::string choice; words >> choice;) {
        if (entry.at("default") != choice) all.push_back({{"name", name}, {key, choice}});
      }
    }
  }
  return all;
}

/// A test name out of a variant: "fedopt_yogi".
inline std::string variant_name(const nlohmann::json& variant) {
  std::string text = variant.at("name").get<std::string>();
  for (const auto& [key, value] : variant.items()) {
    if (key != "name") text += "_" + value.get<std::string>();
  }
  for (char& c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0) c = '_';
  }
  return text;
}

}  // namespace fl::test
