#include "privacy/noise/noise_loops.h"

namespace fl {

extern const NoiseLoops kPortableNoiseLoops = {&cell_loop, &add_loop};

}  // namespace fl
