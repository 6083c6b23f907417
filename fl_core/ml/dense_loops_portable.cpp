#include <atomic>

#include "fl_core/ml/dense_loops.h"

namespace fl {
namespace {

const DenseLoops& best() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return kAvx2DenseLoops;
#endif
  return kPortableDenseLoops;
}

std::atomic<const DenseLoops*>& current() {
  static std::atomic<const DenseLoops*> loops = &best();
  return loops;
}

}  // namespace

const DenseLoops kPortableDenseLoops = kDenseLoops;

const DenseLoops& dense_loops() { return *current().load(std::memory_order_relaxed); }
void use_portable_dense_loops(bool portable) { current() = portable ? &kPortableDenseLoops : &best(); }

}  // namespace fl
