#include "simulations/cli/conformance.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/net/probe.h"

namespace fl::cli {

void expect(bool condition, const std::string& otherwise) {
  if (!condition) throw CheckFailed(otherwise);
}

void Checks::show(const std::string& section, const std::string& what, const char* result, const std::string& detail) {
  if (json_) {
    nlohmann::json line = {{"section", section}, {"check", what}, {"result", result}};
    if (!detail.empty()) line["detail"] = detail;
    std::printf("%s\n", line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else {
    std::printf("%-7s §%-3s %s%s%s\n", result, section.c_str(), what.c_str(), detail.empty() ? "" : ": ", detail.c_str());
  }
  std::fflush(stdout);
}

bool Checks::check(const std::string& section, const std::string& what, const std::function<void()>& action) {
  std::string trouble;
  try {
    action();
    ++passed_;
    show(section, what, "ok", "");
    return true;
  } catch (const CheckFailed& error) {
    trouble = error.what();
  } catch (const ProbeEnded& error) {
    trouble = error.what();
  } catch (const ProbeTimeout& error) {
    trouble = error.what();
  } catch (const ProtocolError& error) {
    trouble = error.what();
  }
  ++failed_;
  show(section, what, "FAILED", trouble);
  return false;
}

void Checks::must(const std::string& section, const std::string& what, const std::function<void()>& action) {
  if (!check(section, what, action)) throw Stop();
}

void Checks::skip(const std::string& section, const std::string& what, const std::string& why) {
  ++skipped_;
  show(section, what, "skipped", why);
}

void Checks::say(const std::string& line) const { std::fprintf(stderr, "%s\n", line.c_str()); }

ExitCode Checks::finish(bool stopped) {
  if (json_) {
    std::printf("%s\n", nlohmann::json{{"passed", passed_}, {"failed", failed_}, {"skipped", skipped_}, {"complete", !stopped}}.dump().c_str());
  } else {
    std::printf("%d passed, %d failed, %d skipped%s\n", passed_, failed_, skipped_, stopped ? "; what comes after the last line could not be checked" : "");
  }
  return failed_ == 0 ? ExitCode::ok : ExitCode::nonconforming;
}

}  // namespace fl::cli
