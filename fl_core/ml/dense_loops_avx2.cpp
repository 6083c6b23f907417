// Compiled with -mavx2; see fl_core/CMakeLists.txt.
#if defined(__x86_64__)
#include "fl_core/ml/dense_loops.h"

namespace fl {
const DenseLoops kAvx2DenseLoops = kDenseLoops;
}  // namespace fl
#endif
