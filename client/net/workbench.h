#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "client/client_config.h"
#include "client/masked_rounds.h"
#include "client/participation_log.h"
#include "client/session.h"
#include "fl_core/config/plan.h"
#include "fl_core/ml/accelerator.h"

namespace fl {

/// What a plan asks of this machine.
struct PlanCheck {
  std::uint64_t max_task_bytes = 0;  ///< no task may have a longer body
  std::uint64_t memory_bytes = 0;  ///< estimate of all that training needs, program and data included
  std::string promise;             ///< of differential privacy, in words; empty for none
  std::string unfit;               ///< why this client cannot follow the plan; empty when it can
  bool operator_must_act = false;  ///< the local data are of another shape: no server can change that
};

/// What a workbench is made with.
struct WorkbenchParts {
  LocalData data;
  std::uint64_t memory_bytes = 0;              ///< the most that training may need, the program included
  PrivacyDemand privacy;
  SecureAggregationDemand secure_aggregation;
  NoiseKeys& keys;                             ///< borrowed
  std::filesystem::path participations;        ///< the file of the ParticipationLog; empty for none
  std::filesystem::path masked_rounds;         ///< the file of MaskedRounds; empty for none
  /// This device's identity in secure aggregation, read afresh. May throw ConfigError.
  std::function<std::shared_ptr<const Enrolment>()> enrol;
  std::shared_ptr<Devices> devices = std::make_shared<Devices>();  ///< where the model is trained; the first is used
};

/// Model, trainer and codec of the plan, and the local data. Owned by the worker thread.
class Workbench {
 public:
  explicit Workbench(WorkbenchParts parts) : parts_(std::move(parts)), log_(parts_.participations), masked_(parts_.masked_rounds) {}

  /// Builds what the plan says. Bad plans come back as `unfit`: the text is a peer's.
  PlanCheck prepare(const std::string& plan, const std::string& run, ClientId client);
  /// Answers a task. Throws ProtocolError for one that no correct server sends, Interrupted when stopped.
  /// REQUIRES: the last prepare() found the plan fit.
  std::optional<Message> answer(const Message& task, const std::function<bool()>& should_stop);

 private:
  PlanCheck build(const ClientPlan& plan);
  /// Why this device's owner would not have the plan's privacy; empty when it is good enough.
  std::string privacy_fault() const;
  /// Likewise for secure aggregation. Makes ready for it.
  std::string prepare_secure_aggregation(const ClientPlan& plan, std::uint64_t parameters);
  std::optional<Message> train_privately(const Message& task, const std::function<std::optional<Message>()>& train);

  WorkbenchParts parts_;
  ParticipationLog log_;
  MaskedRounds masked_;
  std::string plan_sha256_;        ///< what log_ counts under
  ClientPlan plan_;
  std::string codec_name_;
  std::string run_;                ///< identity of the run
  ClientId client_ = 0;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Trainer> trainer_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<DevicePrivacy> privacy_;
  std::unique_ptr<SecureSession> secure_;
};

/// "1x28x28 in 10 classes".
std::string described(const ExampleShape& shape);

}  // namespace fl
