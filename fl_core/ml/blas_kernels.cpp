// OpenBLAS chooses its kernels by the processor's model number, and takes those of 2004 for a model that is younger than itself: matrix
// products are then three times slower. Debian 12's (0.3.21) does so on Intel's Xeons since 2023. The processor says what it can do, so the
// choice is made again by that, before anything is computed. OPENBLAS_CORETYPE, where somebody has set it, stands.

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>

namespace fl {
namespace {

template <class Function>
Function find_function(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
}

#if defined(__x86_64__)
const char* best_core() {
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return "SkylakeX";
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "Haswell" : nullptr;
}

bool choose_again() {
  const auto core_name = find_function<const char* (*)()>("openblas_get_corename");
  const auto begin = find_function<void (*)()>("gotoblas_dynamic_init");
  const auto end = find_function<void (*)()>("gotoblas_dynamic_quit");
  if (core_name == nullptr || begin == nullptr || end == nullptr || std::getenv("OPENBLAS_CORETYPE") != nullptr) return false;
  const char* const core = best_core();
  if (core == nullptr || std::strcmp(core_name(), "Prescott") != 0) return false;
  ::setenv("OPENBLAS_CORETYPE", core, 1);
  end();
  begin();
  return true;
}

// At static initialisation: OpenBLAS is loaded, no thread of ours runs, and nothing was multiplied yet.
[[maybe_unused]] const bool chosen = choose_again();
#endif

}  // namespace
}  // namespace fl
