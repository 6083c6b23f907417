#pragma once

#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>

#include "fl_core/base/error.h"

namespace fl::test {

/// Reads Prometheus' text format 0.0.4 strictly, as its specification says (prometheus.io/docs/instrumenting/exposition_formats), and with
/// the rules of "promtool check metrics" for names. Returns the samples by name and labels as written. Throws Error with the offending line.
inline std::map<std::string, double> read_prometheus(const std::string& text) {
  static const std::regex help(R"(# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ([^\\]|\\\\|\\n)+)");
  static const std::regex type(R"(# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge))");
  static const std::regex sample(
      R"re(([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"\})? (NaN|[+-]Inf|-?[0-9][0-9.e+-]*))re");
  std::map<std::string, double> samples;
  std::set<std::string> finished;
  std::string name;
  std::string kind;
  const auto check = [](bool good, const char* what, const std::string& line) {
    if (!good) throw Error(std::string(what) + ": " + line);
  };
  check(!text.empty() && text.back() == '\n', "no line end at the end", text);
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::smatch match;
    if (std::regex_match(line, match, help)) {
      check(name.empty() || finished.count(name) != 0, "metric without samples", line);
      name = match[1];
      kind.clear();
      check(finished.count(name) == 0, "metric begins twice", line);
    } else if (std::regex_match(line, match, type)) {
      check(match[1] == name && kind.empty(), "TYPE does not follow its HELP", line);
      kind = match[2];
      const bool total = name.size() > 6 && name.substr(name.size() - 6) == "_total";
      check((kind == "counter") == total, "a counter, and nothing else, ends in _total", line);
    } else {
      check(std::regex_match(line, match, sample), "no sample", line);
      check(match[1] == name && !kind.empty(), "sample outside its metric", line);
      const std::string value = match[3];
      double number = std::numeric_limits<double>::quiet_NaN();
      if (value == "+Inf" || value == "-Inf") {
        number = value[0] == '-' ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
      } else if (value != "NaN") {
        const char* end = value.data() + value.size();
        const auto parsed = std::from_chars(value.data(), end, number);
        check(parsed.ec == std::errc() && parsed.ptr == end, "no number", line);
      }
      check(kind != "counter" || number >= 0, "a counter below 0", line);
      check(samples.emplace(match[1].str() + match[2].str(), number).second, "sample twice", line);
      finished.insert(name);
    }
  }
  return samples;
}

}  // namespace fl::test
