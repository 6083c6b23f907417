#include <CLI/CLI.hpp>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "simulations/cli/privacy_commands.h"

namespace fl::cli {
namespace {

/// `sign` 1 rounds up and -1 down. The text itself is compared, since it is what a reader takes over.
std::string rounded(double value, int digits, int sign) {
  if (!std::isfinite(value)) return "infinite";
  if (value <= 0) return "0";
  const double step = sign * 0.5 * std::pow(10, std::floor(std::log10(value)) - digits + 1);
  std::array<char, 64> text{};
  for (double shown = value;; shown += step) {
    std::snprintf(text.data(), text.size(), "%.*g", digits, shown);
    if (sign * (std::strtod(text.data(), nullptr) - value) >= 0) return text.data();
  }
}

}  // namespace

std::string rounded_up(double value, int digits) { return rounded(value, digits, 1); }
std::string rounded_down(double value, int digits) { return rounded(value, digits, -1); }

void add_privacy(CLI::App& app, Action& action) {
  auto* privacy = app.add_subcommand("privacy", "Differential privacy: what noise costs, what a run has spent, and whether its promise stands an attack");
  privacy->require_subcommand(1);
  add_privacy_epsilon(*privacy, action);
  add_privacy_calibrate(*privacy, action);
  add_privacy_ledger(*privacy, action);
  add_privacy_audit(*privacy, action);
}

}  // namespace fl::cli
