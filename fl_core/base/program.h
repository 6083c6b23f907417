#pragma once

#include <functional>
#include <string>

#include "fl_core/base/error.h"

namespace fl {

/// What every program of ours does around its work: runs `body`, makes sure that what it printed is out, and turns whatever it
/// throws into one line "NAME: message" on standard error and a documented exit code. `out_of_memory`: what to do about
/// std::bad_alloc, as the end of a sentence.
int run_program(const char* name, const char* out_of_memory, const std::function<ExitCode()>& body);

}  // namespace fl
