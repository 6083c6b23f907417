#include "fl_core/base/error.h"

namespace fl {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw Error("internal check failed: " + message + " [" + condition + ", " + file + ":" + std::to_string(line) +
              "]; this is a bug in Tributary, please report it");
}

}  // namespace fl
