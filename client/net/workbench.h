#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/client_config.h"
#include "client/participation_log.h"
#include "client/session.h"
#include "fl_core/config/plan.h"

namespace fl {

/// What a plan asks of this machine.
struct PlanCheck {
  std::uint64_t model_bytes = 0;   ///< float[N]
  std::uint64_t memory_bytes = 0;  ///< estimate of all that training needs, program and data included
  std::string promise;             ///< of differential privacy, in words; empty for none
  std::string unfit;               ///< why this client cannot follow the plan; empty when it can
  bool operator_must_act = false;  ///< the local data are of another shape: no server can change that
};

/// Model, trainer and codec of the plan, and the local data. Owned by the worker thread.
class Workbench {
 public:
  /// `memory_bytes`: the most that training may need, the program included. `keys` is borrowed. `participations`: the file
  /// of the ParticipationLog, empty for none.
  Workbench(LocalData data, std::uint64_t memory_bytes, NoiseKeys& keys, const std::filesystem::path& participations)
      : data_(std::move(data)), memory_bytes_(memory_bytes), keys_(keys), log_(participations) {}

  /// Builds what the plan says. Bad plans come back as `unfit`: the text is a peer's.
  PlanCheck prepare(const std::string& plan, ClientId client);
  /// Answers a task. Throws ProtocolError for one that no correct server sends, Interrupted when stopped.
  /// REQUIRES: the last prepare() found the plan fit.
  std::optional<Message> answer(const Message& task, const std::function<bool()>& should_stop);

 private:
  PlanCheck build(const ClientPlan& plan);

  LocalData data_;
  std::uint64_t memory_bytes_;
  NoiseKeys& keys_;
  ParticipationLog log_;
  std::string promise_;            ///< SHA-256 of the plan's promise: what log_ counts under
  std::uint64_t participations_ = 0;  ///< that it allows
  ClientPlan plan_;
  std::string codec_name_;
  ClientId client_ = 0;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<DevicePrivacy> privacy_;
};

/// "1x28x28 in 10 classes".
std::string described(const ExampleShape& shape);

/// What this process holds in memory now, in bytes.
std::uint64_t resident_bytes();
/// The machine's memory, in bytes.
std::uint64_t machine_bytes();

}  // namespace fl
