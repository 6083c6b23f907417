#include "fl_core/ml/torch_runtime.h"

#include <dlfcn.h>
#include <torch/torch.h>

#include <algorithm>
#include <chrono>
#include <filesystem>

namespace fl {
namespace {

/// OpenBLAS may be bound to libblas.so at run time (Debian's alternatives), so nothing here links against it.
template <class Function>
Function find_function(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_DEFAULT, name));
}

std::string blas_library() {
  if (at::hasMKL()) return "Intel MKL";
  if (auto* config = find_function<char* (*)()>("openblas_get_config")) return config();
  void* const sgemm = ::dlsym(RTLD_DEFAULT, "sgemm_");
  Dl_info info{};
  if (sgemm != nullptr && ::dladdr(sgemm, &info) != 0 && info.dli_fname != nullptr) {
    return "unknown BLAS in " + std::filesystem::path(info.dli_fname).filename().string();
  }
  return "unknown BLAS";
}

}  // namespace

void limit_threads_of_this_worker() { use_threads_in_this_worker(1); }

void use_threads_in_this_worker(int threads) {
  at::set_num_threads(threads);
  if (auto* set_threads = find_function<void (*)(int)>("openblas_set_num_threads")) set_threads(threads);
}

int intra_op_threads() { return at::get_num_threads(); }

std::string torch_version() { return TORCH_VERSION; }

GpuSupport gpu_support() {
  GpuSupport support;
  support.cuda = at::Context::hasCUDART();
  if (!support.cuda) {
    support.text = "none: this LibTorch has no CUDA, models run on the cpu (docs/gpu.md)";
    return support;
  }
  support.gpus = static_cast<int>(torch::cuda::device_count());
  const long version = at::Context::versionCUDART();  // 13020 is 13.2
  support.text = std::to_string(support.gpus) + " for CUDA " + std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10) +
                 (support.gpus == 0 ? ", models run on the cpu" : "; use one with --set device=cuda");
  return support;
}

BlasSpeed measure_blas() {
  using Clock = std::chrono::steady_clock;
  limit_threads_of_this_worker();
  const at::NoGradGuard no_grad;
  constexpr std::int64_t kSize = 512;
  constexpr double kFlops = 2.0 * kSize * kSize * kSize;
  const torch::Tensor a = torch::ones({kSize, kSize});
  const torch::Tensor b = torch::ones({kSize, kSize});
  torch::Tensor c = torch::empty({kSize, kSize});
  BlasSpeed speed;
  speed.library = blas_library();
  const Clock::time_point end = Clock::now() + std::chrono::milliseconds(200);
  do {
    const Clock::time_point start = Clock::now();
    at::mm_out(c, a, b);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    speed.gflops = std::max(speed.gflops, kFlops / seconds * 1e-9);
  } while (Clock::now() < end);
  return speed;
}

}  // namespace fl
