#include "fl_core/params/kernel_loops.h"

namespace fl::kernels {
const KernelTable& portable_kernels() {
  static constexpr KernelTable table = table_of("portable");
  return table;
}
}  // namespace fl::kernels
