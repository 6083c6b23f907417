#include "privacy/noise/noise_loops.h"

#include <atomic>

namespace fl {
namespace {

const NoiseLoops* best_loops() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return &kAvx2NoiseLoops;
#endif
  return &kPortableNoiseLoops;
}

std::atomic<const NoiseLoops*>& current_loops() {
  static std::atomic<const NoiseLoops*> loops = best_loops();
  return loops;
}

}  // namespace

const NoiseLoops& noise_loops() { return *current_loops().load(std::memory_order_relaxed); }
void use_portable_noise_loops(bool portable) { current_loops() = portable ? &kPortableNoiseLoops : best_loops(); }

}  // namespace fl
