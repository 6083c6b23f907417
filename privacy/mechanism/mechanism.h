#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "fl_core/config/registry.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/params/sum_code.h"
#include "privacy/accounting/event.h"
#include "privacy/noise/noise_keys.h"

namespace fl {

/// What the rest of an experiment fixes for its mechanism. All of it is public.
struct PrivacySetting {
  std::uint64_t parameters = 0;      ///< floats of an update, N
  double cohort = 1;                 ///< expected clients of a round: what a noisy sum is divided by
  std::uint64_t max_cohort = 1;      ///< the most updates that one round may add
  std::uint64_t minimum_cohort = 1;  ///< a round with fewer updates is not released (noise from devices)
  double sampling_rate = 1;          ///< a client's chance to take part in a round (Poisson); 1 where none is claimed
  std::uint32_t rounds = 1;          ///< planned
  std::uint32_t separation = 1;      ///< rounds from one participation of a client to its next, at least
  std::uint64_t example_steps = 0;   ///< steps of example-level training in one round
  int bound_bits = ExactSum::kDefaultBoundBits;
  Adjacency adjacency = Adjacency::add_or_remove_one;

  /// The most of the first `after` rounds that one client can take part in.
  std::uint64_t participations(std::uint32_t after) const { return (std::uint64_t{after} + separation - 1) / separation; }
};

/// Clipping and noise of DP-SGD, for the trainer on the device.
struct ExampleNoise {
  double sampling_rate = 0;     ///< chance of each local example to be in a step's batch
  double clip_norm = 0;         ///< L2 bound of one example's gradient
  double noise_multiplier = 0;  ///< noise standard deviation over clip_norm
  NoiseKey key{};               ///< of this round's batches and noise
};

/// The device's half of a mechanism. Immutable; one thread at a time.
class DeviceMechanism {
 public:
  virtual ~DeviceMechanism() = default;
  /// Turns the raw delta (float[N], finite) in place into what may leave the device. `round` keys what all devices share.
  virtual void protect(std::span<float> delta, std::uint32_t round, const NoiseKey& key) const = 0;
};

/// What a release did beside the model, for reports. Nothing here tells more than the release itself.
struct ReleaseFacts {
  double clip_norm = 0;                    ///< of this round; 0: none
  std::optional<double> clipped_fraction;  ///< noisy; only where a mechanism pays for it
  double noise_stddev = 0;                 ///< of the noise on one coordinate of the mean
};

/// The server's half: collects a round's updates, each bounded, and releases their noisy mean. The engine's thread alone.
class ServerMechanism {
 public:
  virtual ~ServerMechanism() = default;
  /// Adds one client's update, decoded but otherwise as the peer sent it; any order gives the same bits. Nothing is added
  /// unless the result is ExactSumError::none (out_of_bound: not what protect() can have made).
  virtual ExactSumError add(std::span<const float> update) = 0;
  /// The same for the sum of `terms` updates that nobody saw one by one, decoded by Mechanism::sum_code().
  virtual void add_sum(std::span<const std::int64_t> sum, std::uint64_t terms) = 0;
  /// mean: float[N] gets the noisy sum over setting.cohort. Forgets what was added, and adds noise also when that was nothing.
  /// Called once for each released round, in the order 1, 2, … of releases.
  virtual ReleaseFacts release(std::uint32_t round, std::span<float> mean) = 0;
  /// Forgets what was added; nothing was released.
  virtual void discard() = 0;
  /// What release() depends on beside its updates (an adaptive clip, the key of correlated noise), as JSON for the checkpoint;
  /// and back after a restart.
  virtual nlohmann::json state() const;
  virtual void set_state(const nlohmann::json& state);
};

/// How a promise is kept: who clips, who adds which noise, and what that costs. Immutable. Noise is measured in one number,
/// the noise multiplier z: the standard deviation of a mechanism's base noise over its clip norm.
class Mechanism {
 public:
  virtual ~Mechanism() = default;
  /// Whether a record is one example of a client rather than the whole client.
  virtual bool protects_examples() const { return false; }
  /// Whether noise is added on the devices, so that the update itself is the release.
  virtual bool on_device() const { return false; }
  /// Whether it is hidden that a record is there at all. Where every device adds its own noise, who answered is seen, and only
  /// replace_one means anything.
  virtual bool hides_presence() const { return true; }
  /// Whether a round is released however few answered (the server's noise covers it).
  virtual bool releases_always() const { return false; }
  /// Whether the cost falls with PrivacySetting::sampling_rate.
  virtual bool amplified_by_sampling() const { return false; }

  /// Throws ConfigError where the mechanism cannot keep a promise in this setting; `path` is the mechanism's JSON path.
  virtual void check(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const;
  /// What rounds 1 … `after` cost one record, at most.
  virtual std::vector<PrivacyEvent> events(const PrivacySetting& setting, double noise_multiplier, std::uint32_t after) const = 0;

  /// nullptr: the server averages updates as without privacy, every client alike.
  virtual std::unique_ptr<ServerMechanism> server(const PrivacySetting& setting, double noise_multiplier, NoiseKeys& keys) const;
  /// nullptr: the delta leaves the device as it is (the server, or the trainer, bounds it).
  virtual std::unique_ptr<DeviceMechanism> device(const PrivacySetting& setting, double noise_multiplier) const;
  /// Under secure aggregation, instead of device(): the device also bounds the delta where the server would, since the server sees no
  /// update. The sum has the bits of a run without.
  virtual std::unique_ptr<DeviceMechanism> summed_device(const PrivacySetting& setting, double noise_multiplier) const { return device(setting, noise_multiplier); }
  /// Under secure aggregation: the integers that are summed. Throws ConfigError where the server must see each update.
  virtual SumCode sum_code(const PrivacySetting& setting, double noise_multiplier, const std::string& path) const;
  /// Only where training itself is private; key is left empty.
  virtual std::optional<ExampleNoise> example_noise(double noise_multiplier) const;
};

using MechanismRegistry = Registry<Mechanism>;
/// Kind "mechanism".
MechanismRegistry& mechanisms();

}  // namespace fl
