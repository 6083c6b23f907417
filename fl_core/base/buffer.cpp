#include "fl_core/base/buffer.h"

#include <sys/mman.h>

namespace fl {
namespace {

constexpr std::size_t kHugePage = std::size_t{2} << 20U;
/// Below this, what alignment and rounding waste is too much for what huge pages save.
constexpr std::size_t kLarge = 2 * kHugePage;

}  // namespace

void* allocate_aligned(std::size_t bytes) {
  const bool large = bytes >= kLarge;
  void* memory = std::aligned_alloc(large ? kHugePage : kAlignment, bytes);
  if (memory == nullptr) throw std::bad_alloc();
  // Advice: a system that has no huge pages to give leaves it at small ones.
  if (large) ::madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return memory;
}

}  // namespace fl
