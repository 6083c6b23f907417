#pragma once

#include <torch/torch.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/ml/accelerator.h"

namespace fl {

/// A data set in a device's memory.
struct ResidentData {
  torch::Tensor inputs;  ///< float[size, shape.input…]
  torch::Tensor labels;  ///< int64[size]
};

/// An accelerator that LibTorch drives. Everything is queued on the device's default stream, so what is asked for later sees what was asked
/// for before, by whichever worker. Users know only GPUs; tests put the processor in a GPU's place and run the same code.
class TorchAccelerator final : public Accelerator {
 public:
  /// Data sets stay on the device as long as their features, as floats, come to at most `resident_bytes` in all; batches of others are copied.
  TorchAccelerator(torch::Device device, std::uint64_t resident_bytes);

  const std::string& name() const override { return name_; }
  torch::Device device() const { return device_; }
  torch::TensorOptions floats() const { return torch::TensorOptions().dtype(torch::kFloat).device(device_); }

  /// A copy of `host` on the device; a GPU's comes while the caller goes on, and `host` may change at once.
  torch::Tensor upload(const torch::Tensor& host) const;
  /// The data set on the device, uploaded when somebody first asks; null where it does not fit. Two data sets of one fingerprint are one.
  std::shared_ptr<const ResidentData> data(const Dataset& data);

  /// Runs `action`. That the device's memory is full becomes a ConfigError which says what to do.
  template <class Action>
  auto within_memory(Action action) const {
    try {
      return action();
    } catch (const c10::OutOfMemoryError&) {
      throw ConfigError("device: the memory of " + name_ + " is full; use fewer --workers (each keeps a model there), a smaller trainer.batch_size, or more GPUs");
    }
  }

  /// What was copied, for whoever wants to know that it was little.
  struct Copies {
    std::atomic<std::uint64_t> weights_up = 0;
    std::atomic<std::uint64_t> weights_down = 0;
    std::atomic<std::uint64_t> data_sets = 0;
    std::atomic<std::uint64_t> batches = 0;
  };
  Copies& copies() { return copies_; }

 private:
  std::shared_ptr<const ResidentData> upload_data(const Dataset& data);

  torch::Device device_;
  std::string name_;
  std::uint64_t free_bytes_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<const ResidentData>> data_;  ///< by fingerprint; null for one that does not fit
  Copies copies_;
};

}  // namespace fl
