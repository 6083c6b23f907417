#pragma once

#include <string>

#include "simulations/cli/command.h"

namespace fl::cli {

// The commands of 'fl privacy'.
void add_privacy_epsilon(CLI::App& privacy, Action& action);
void add_privacy_calibrate(CLI::App& privacy, Action& action);
void add_privacy_ledger(CLI::App& privacy, Action& action);
void add_privacy_audit(CLI::App& privacy, Action& action);

/// A positive number with this many digits and not below it ("infinite" for that; "0" for 0), so that what is printed is a bound too.
std::string rounded_up(double value, int digits);
/// The same, not above it.
std::string rounded_down(double value, int digits);

}  // namespace fl::cli
