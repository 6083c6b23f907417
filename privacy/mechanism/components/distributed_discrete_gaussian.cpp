#include "privacy/mechanism/integer_update.h"
#include "privacy/noise/integer_noise.h"

namespace fl {
namespace {

/// Sum of the devices' discrete Gaussians (Kairouz, Liu, Steinke 2021, 2102.06387).
class DistributedDiscreteGaussian final : public DistributedMechanism {
 public:
  explicit DistributedDiscreteGaussian(const DistributedOptions& options) : DistributedMechanism(options, PrivacyEvent::Kind::discrete_gaussian) {}

 private:
  IntegerDraw draw_of(double variance) const override {
    return [noise = DiscreteGaussian(variance)](RandomBits& bits, std::span<std::int64_t> out) { noise.fill(bits, out); };
  }
};

FL_REGISTER(mechanisms(), "distributed_discrete_gaussian", DistributedDiscreteGaussian, DistributedOptions,
            "every device adds a share of discrete Gaussian noise to an integer update: ready for secure aggregation");

}  // namespace
}  // namespace fl
