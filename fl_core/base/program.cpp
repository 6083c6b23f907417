#include "fl_core/base/program.h"

#include <algorithm>
#include <cstdio>
#include <new>
#include <system_error>

namespace fl {
namespace {

int fail(const char* name, std::string message, ExitCode code) {
  // An error is one line, whatever a library, a file or a peer put into it.
  std::replace_if(message.begin(), message.end(), [](unsigned char c) { return c < 0x20 || c == 0x7F; }, ' ');
  std::fprintf(stderr, "%s: %s\n", name, message.c_str());
  return static_cast<int>(code);
}

}  // namespace

int run_program(const char* name, const char* out_of_memory, const std::function<ExitCode()>& body) {
  try {
    const ExitCode code = body();
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) throw IoError("cannot write to standard output; is its disk full?");
    return static_cast<int>(code);
  } catch (const Error& error) {
    return fail(name, error.what(), error.exit_code());
  } catch (const std::bad_alloc&) {
    return fail(name, std::string("out of memory; ") + out_of_memory, ExitCode::io);
  } catch (const std::system_error& error) {
    return fail(name, std::string("the system refused: ") + error.what(), ExitCode::io);
  } catch (const std::exception& error) {
    return fail(name, std::string("unexpected error: ") + error.what() + "; this is a bug in Tributary, please report it", ExitCode::bug);
  }
}

}  // namespace fl
