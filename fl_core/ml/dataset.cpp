#include "fl_core/ml/dataset.h"

namespace fl {

const std::vector<std::vector<std::uint32_t>>& Dataset::users() const {
  static const std::vector<std::vector<std::uint32_t>> none;
  return none;
}

DataRegistry& data_sources() {
  static DataRegistry registry("data");
  return registry;
}

}  // namespace fl
