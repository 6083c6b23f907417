#include "simulations/cli/report.h"

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <map>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/json_reader.h"
#include "simulations/cli/report_view.h"

namespace fl {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

/// A JSON object in a file of the folder; null when the file is not there.
json read_object(const fs::path& path) {
  if (!fs::exists(path)) return nullptr;
  json document = read_json_file(path);
  if (!document.is_object()) throw ConfigError(path.string() + ": got " + shown(document) + ", expected an object");
  return document;
}

std::vector<RoundReport> read_rounds(const fs::path& path) {
  if (!fs::exists(path)) return {};
  std::ifstream file(path, std::ios::binary);
  if (!file) throw IoError("cannot open " + path.string() + ": " + std::strerror(errno));
  std::map<std::uint32_t, RoundReport> rounds;
  std::string line;
  for (std::size_t number = 1; std::getline(file, line); ++number) {
    if (file.eof()) break;  // no newline: it is still being written
    if (line.empty()) continue;
    const std::string source = path.string() + ":" + std::to_string(number);
    const json parsed = parse_json(line, source);
    try {
      RoundReport report = report_from_json(parsed);
      rounds[report.round] = std::move(report);
    } catch (const Error& error) {
      throw ConfigError(source + ": " + error.what());
    }
  }
  if (file.bad()) throw IoError("cannot read " + path.string() + ": " + std::strerror(errno));
  std::vector<RoundReport> ascending;
  for (auto& [round, report] : rounds) ascending.push_back(std::move(report));
  return ascending;
}

std::string base64(const Sha256::Digest& digest) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < digest.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 3; ++j)
      bits = bits << 8U | (i + j < digest.size() ? std::to_integer<std::uint32_t>(digest[i + j]) : 0U);
    for (std::size_t j = 0; j < 4; ++j) out += i + j > digest.size() ? '=' : kDigits[bits >> (18 - 6 * j) & 63U];
  }
  return out;
}

std::string hash_source(const char* text) {
  return "'sha256-" + base64(Sha256().add(std::string(text)).finish()) + "'";
}

}  // namespace

RunData read_run(const fs::path& folder) {
  std::error_code error;
  const fs::file_status status = fs::status(folder, error);
  if (status.type() == fs::file_type::not_found)
    throw IoError("cannot open the run folder " + folder.string() + ": no such folder");
  if (error) throw IoError("cannot open the run folder " + folder.string() + ": " + error.message());
  RunData data;
  data.folder = folder.string();
  data.experiment = fs::is_directory(status) ? read_object(folder / "experiment.json") : json();
  if (data.experiment.is_null()) {
    throw ConfigError(folder.string() +
                      " is not a run folder: it has no experiment.json; name a folder that 'fl simulate' made");
  }
  data.run = read_object(folder / "run.json");
  data.rounds = read_rounds(folder / "metrics.jsonl");
  json partition = read_object(folder / "partition.json");
  if (!partition.is_null()) data.partition = std::move(partition);
  return data;
}

std::string render_report(const std::vector<RunData>& runs) {
  FL_CHECK(!runs.empty(), "a report needs a run");
  const std::vector<report::View> views = report::make_views(runs);
  const std::string title =
      views.size() == 1 ? views[0].label : "Comparison of " + std::to_string(views.size()) + " runs";
  // The policy names the hashes of our own style and script: markup that slipped through could neither run nor load.
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/>"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src " +
      hash_source(report::kStyle) + "; script-src " + hash_source(report::kScript) +
      "; base-uri 'none'; form-action 'none'\"/><meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\"/><title>" +
      report::escape(title) + " – Tributary</title><style>" + report::kStyle + "</style></head>\n<body><main>\n";
  for (const auto& part :
       {report::header_section, report::curves_section, report::privacy_section, report::numbers_section, report::differences_section,
        report::classes_section, report::clients_section, report::outcomes_section, report::partition_section,
        report::cost_section, report::rounds_section, report::experiments_section}) {
    out += part(views);
  }
  return out +
         "<footer>Made by <code>fl report</code>. Curves keep the lowest and the highest value of each stretch of "
         "rounds.</footer>\n</main><script>" +
         report::kScript + "</script></body></html>\n";
}

}  // namespace fl
