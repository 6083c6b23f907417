#include "fl_core/params/kernel_loops.h"

namespace fl::kernels {
const KernelTable& portable_kernels() { return kTable; }
}  // namespace fl::kernels
