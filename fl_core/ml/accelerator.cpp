#include "fl_core/ml/accelerator.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/device.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

OpenAccelerators& provider() {
  static OpenAccelerators open;
  return open;
}

std::vector<std::shared_ptr<Accelerator>> open_accelerators(const std::string& device, const std::string& path) {
  const std::vector<int> gpus = gpus_of(device, path);
  if (gpus.empty()) return {};
  if (!provider()) bad_value(path, device, "\"cpu\": this program was built without LibTorch");
  return provider()(gpus, device, path);
}

}  // namespace

bool provide_accelerators(OpenAccelerators open) {
  provider() = std::move(open);
  return true;
}

Devices::Devices(const std::string& device, const std::string& path) : accelerators_(open_accelerators(device, path)) {}

void Devices::require(bool runs, const std::string& path, const std::string& name) const {
  if (!runs && !on_cpu()) throw ConfigError(path + ": " + name + " runs on the cpu only; set \"device\" to \"cpu\", or choose another");
}

std::unique_ptr<Model> Devices::make_model(const ModelFactory& factory, std::uint64_t seed) {
  if (on_cpu()) return factory.make(seed);
  return factory.make_on(seed, accelerators_[next_++ % accelerators_.size()]);
}

}  // namespace fl
