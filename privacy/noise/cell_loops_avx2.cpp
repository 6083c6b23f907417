// Compiled with -mavx2 and tuned for a processor that gathers fast; see privacy/CMakeLists.txt.
#if defined(__x86_64__)
#include "privacy/noise/cell_loops.h"

namespace fl {

bool cell_loop_avx2(const std::uint32_t* slots, std::uint64_t slot_mask, int offset_bits, std::int64_t first, const std::uint64_t* words,
                    std::int64_t* out, std::size_t count) {
  return cell_loop(slots, slot_mask, offset_bits, first, words, out, count);
}

}  // namespace fl
#endif
