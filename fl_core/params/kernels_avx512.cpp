// Compiled with AVX-512 in vectors of 512 bits; see fl_core/CMakeLists.txt.
#if defined(__x86_64__)
#include "fl_core/params/kernel_loops.h"

namespace fl::kernels {
const KernelTable& avx512_kernels() {
  static constexpr KernelTable table = table_of("avx512");
  return table;
}
}  // namespace fl::kernels
#endif
