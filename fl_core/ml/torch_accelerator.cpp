#include "fl_core/ml/torch_accelerator.h"

#include <c10/core/DeviceGuard.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <vector>

#include "fl_core/config/json_reader.h"
#include "fl_core/ml/torch_runtime.h"

namespace fl {
namespace {

/// Where a GPU does not say how much memory it has free.
constexpr std::uint64_t kResidentBytes = 2ULL << 30U;
/// Examples that are uploaded at once.
constexpr std::size_t kExamplesAtOnce = 4096;

/// Half of a GPU's free memory: the other half is for weights, activations and cuDNN's scratch. CUDA's runtime is part of LibTorch's
/// libraries, so nothing here links against it.
std::uint64_t resident_bytes_of(torch::Device device) {
  using MemGetInfo = int (*)(std::size_t*, std::size_t*);
  const auto get_info = reinterpret_cast<MemGetInfo>(::dlsym(RTLD_DEFAULT, "cudaMemGetInfo"));
  const c10::DeviceGuard guard(device);
  std::size_t free = 0, total = 0;
  if (get_info == nullptr || get_info(&free, &total) != 0) return kResidentBytes;
  return free / 2;
}

/// The same bits in every run on the same kind of GPU. Before CUDA starts: cuBLAS reads its variable then.
void make_deterministic() {
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  at::Context& context = at::globalContext();
  context.setDeterministicAlgorithms(true, false);
  context.setDeterministicCuDNN(true);
  context.setBenchmarkCuDNN(false);
  context.setAllowTF32CuBLAS(false);
  context.setAllowTF32CuDNN(false);
#if TORCH_VERSION_MAJOR > 2 || (TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 2)
  context.setDeterministicFillUninitializedMemory(false);  // nothing reads what it has not written
#endif
}

std::vector<std::shared_ptr<Accelerator>> open_gpus(const std::vector<int>& gpus, const std::string& device, const std::string& path) {
  const GpuSupport support = gpu_support();
  const std::string got = path + ": got " + shown(device) + ", but ";
  if (!support.cuda) {
    throw ConfigError(got + "this build's LibTorch " + torch_version() + " has no CUDA; use \"cpu\" or build with -DCMAKE_PREFIX_PATH=<a CUDA LibTorch> (docs/gpu.md)");
  }
  if (support.gpus == 0) throw ConfigError(got + "CUDA finds no GPU on this machine; use \"cpu\", or look whether 'nvidia-smi' shows one");
  for (const int gpu : gpus) {
    if (gpu < support.gpus) continue;
    throw ConfigError(got + "this machine has " + std::to_string(support.gpus) + (support.gpus == 1 ? " GPU, cuda:0" : " GPUs, cuda:0 to cuda:" + std::to_string(support.gpus - 1)));
  }
  make_deterministic();
  std::vector<std::shared_ptr<Accelerator>> accelerators;
  for (const int gpu : gpus) {
    const torch::Device one(torch::kCUDA, static_cast<c10::DeviceIndex>(gpu));
    accelerators.push_back(std::make_shared<TorchAccelerator>(one, resident_bytes_of(one)));
  }
  return accelerators;
}

[[maybe_unused]] const bool provided = provide_accelerators(open_gpus);

}  // namespace

TorchAccelerator::TorchAccelerator(torch::Device device, std::uint64_t resident_bytes) : device_(device), name_(device.str()), free_bytes_(resident_bytes) {}

torch::Tensor TorchAccelerator::upload(const torch::Tensor& host) const {
  if (!device_.is_cuda()) return host.clone();
  // A copy from pinned memory does not wait for the device; LibTorch keeps the memory until it is done.
  torch::Tensor pinned = torch::empty(host.sizes(), host.options().pinned_memory(true));
  pinned.copy_(host);
  return pinned.to(device_, /*non_blocking=*/true);
}

std::shared_ptr<const ResidentData> TorchAccelerator::data(const Dataset& data) {
  // Whoever else needs the data set waits until it is there.
  const std::lock_guard lock(mutex_);
  const auto known = data_.find(data.fingerprint());
  if (known != data_.end()) return known->second;
  const std::uint64_t bytes = static_cast<std::uint64_t>(data.size()) * data.shape().input_size() * sizeof(float);
  std::shared_ptr<const ResidentData> resident;
  if (bytes <= free_bytes_) {
    resident = upload_data(data);
    if (resident) free_bytes_ -= bytes;
  }
  return data_.emplace(data.fingerprint(), std::move(resident)).first->second;
}

std::shared_ptr<const ResidentData> TorchAccelerator::upload_data(const Dataset& data) try {
  const torch::NoGradGuard no_grad;
  const auto size = static_cast<std::int64_t>(data.size());
  const std::size_t row = data.shape().input_size();
  std::vector<std::int64_t> sizes{size};
  sizes.insert(sizes.end(), data.shape().input.begin(), data.shape().input.end());
  torch::Tensor inputs = torch::empty(sizes, floats());
  std::vector<float> features;
  std::vector<std::uint32_t> examples;
  for (std::size_t first = 0; first < data.size(); first += examples.size()) {
    examples.resize(std::min(kExamplesAtOnce, data.size() - first));
    std::iota(examples.begin(), examples.end(), static_cast<std::uint32_t>(first));
    features.resize(examples.size() * row);
    data.gather(examples, features);
    sizes[0] = static_cast<std::int64_t>(examples.size());
    inputs.narrow(0, static_cast<std::int64_t>(first), sizes[0]).copy_(torch::from_blob(features.data(), sizes, torch::kFloat));
  }
  std::vector<std::int64_t> labels(data.labels().begin(), data.labels().end());
  const torch::Tensor on_host = torch::from_blob(labels.data(), {size}, torch::kLong);
  ++copies_.data_sets;
  return std::make_shared<const ResidentData>(ResidentData{inputs, upload(on_host)});
} catch (const c10::OutOfMemoryError&) {
  return nullptr;
}

}  // namespace fl
