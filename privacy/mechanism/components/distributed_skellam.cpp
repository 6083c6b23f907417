#include "privacy/mechanism/integer_update.h"
#include "privacy/noise/integer_noise.h"

namespace fl {
namespace {

/// Sum of the devices' Skellams, which is a Skellam (Agarwal, Kairouz, Liu 2021, 2110.04995).
class DistributedSkellam final : public DistributedMechanism {
 public:
  explicit DistributedSkellam(const DistributedOptions& options) : DistributedMechanism(options, PrivacyEvent::Kind::skellam) {}

 private:
  IntegerDraw draw_of(double variance) const override {
    return [noise = Skellam(variance)](RandomBits& bits, std::span<std::int64_t> out) { noise.fill(bits, out); };
  }
};

FL_REGISTER(mechanisms(), "distributed_skellam", DistributedSkellam, DistributedOptions,
            "every device adds a share of Skellam noise to an integer update: ready for secure aggregation");

}  // namespace
}  // namespace fl
