// Compiled with -mavx2 and tuned for a processor that gathers fast; see privacy/CMakeLists.txt.
#if defined(__x86_64__)
#include "privacy/noise/noise_loops.h"

namespace fl {

extern const NoiseLoops kAvx2NoiseLoops = {&cell_loop, &add_loop};

}  // namespace fl
#endif
