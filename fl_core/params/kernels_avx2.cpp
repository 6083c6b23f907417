// Compiled with -mavx2 -mfma; see fl_core/CMakeLists.txt.
#if defined(__x86_64__)
#include "fl_core/params/kernel_loops.h"

namespace fl::kernels {
const KernelTable& avx2_kernels() {
  static constexpr KernelTable table = table_of("avx2");
  return table;
}
}  // namespace fl::kernels
#endif
