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
  Workbench(LocalData data, std::uint64_t memory_bytes, const PrivacyDemand& demand, NoiseKeys& keys, const std::filesystem::path& participations)
      : data_(std::move(data)), memory_bytes_(memory_bytes), demand_(demand), keys_(keys), keeps_count_(!participations.empty()), log_(participations) {}

  /// Builds what the plan says. Bad plans come back as `unfit`: the text is a peer's.
  PlanCheck prepare(const std::string& plan, ClientId client);
  /// Answers a task. Throws ProtocolError for one that no correct server sends, Interrupted when stopped.
  /// REQUIRES: the last prepare() found the plan fit.
  std::optional<Message> answer(const Message& task, const std::function<bool()>& should_stop);

 private:
  PlanCheck build(const ClientPlan& plan);
  /// Why this device's owner would not have the plan's privacy; empty when it is good enough.
  std::string privacy_fault() const;
  std::optional<Message> train_privately(const Message& task, const std::function<std::optional<Message>()>& train);

  LocalData data_;
  std::uint64_t memory_bytes_;
  PrivacyDemand demand_;
  NoiseKeys& keys_;
  bool keeps_count_;               ///< also over a restart
  ParticipationLog log_;
  std::string plan_sha256_;        ///< what log_ counts under
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

}  // namespace fl
