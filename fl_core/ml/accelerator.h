#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fl_core/ml/model.h"

namespace fl {

/// A device on which models compute in place of the processor: a CUDA GPU. Shared by the workers that use it; thread-safe.
class Accelerator {
 public:
  virtual ~Accelerator() = default;
  /// "cuda:0".
  virtual const std::string& name() const = 0;
};

/// Opens the GPUs with these numbers. `device` and `path` are for errors. Throws ConfigError that says what this machine or build lacks.
using OpenAccelerators = std::function<std::vector<std::shared_ptr<Accelerator>>(const std::vector<int>& gpus, const std::string& device, const std::string& path)>;
/// Called once, at static initialisation, by the code that knows LibTorch.
bool provide_accelerators(OpenAccelerators open);

/// Where the workers of a run compute: on the processor, or on accelerators that they are spread over in turn.
class Devices {
 public:
  /// The processor.
  Devices() = default;
  explicit Devices(std::vector<std::shared_ptr<Accelerator>> accelerators) : accelerators_(std::move(accelerators)) {}
  /// What a "device" key says (gpus_of()); `path` is its JSON path. Throws ConfigError where this program cannot use them.
  Devices(const std::string& device, const std::string& path);

  bool on_cpu() const { return accelerators_.empty(); }
  /// Throws ConfigError unless `runs` or on_cpu(): "trainer.name: dp_sgd runs on the cpu only, …".
  void require(bool runs, const std::string& path, const std::string& name) const;
  /// The worker with this number gets the first model; the next models are for those after it. For processes that share devices.
  void start_with(std::size_t worker) { next_ = worker; }
  /// A model for the next worker. Any thread.
  std::unique_ptr<Model> make_model(const ModelFactory& factory, std::uint64_t seed);

 private:
  std::vector<std::shared_ptr<Accelerator>> accelerators_;
  std::atomic<std::size_t> next_ = 0;
};

}  // namespace fl
