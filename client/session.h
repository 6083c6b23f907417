#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "client/device_privacy.h"
#include "client/secure_session.h"
#include "client/trainer/trainer.h"
#include "fl_core/codec/codec.h"
#include "fl_core/wire/message.h"

namespace fl {

/// What a session works with. In a deployment there is one kit a process; a simulator's worker lends its kit to one
/// virtual client after another. Everything is borrowed and outlives the session.
struct ClientKit {
  Model& model;
  Trainer& trainer;
  const Codec& codec;
  std::string codec_name;
  const Dataset& data;
  std::uint64_t seed = 0;
  double holdout = 0;              ///< share of the shard kept for evaluation
  bool uniform_weight = false;     ///< every update weighs the same, instead of by examples
  std::int64_t weight_cap = 65535; ///< examples that a client may count for
  const DevicePrivacy* privacy = nullptr;  ///< under a promise: nothing leaves but what it lets through
  SecureSession* secure = nullptr;         ///< this client's; under secure aggregation: nothing leaves but through it
};

/// The client's half of the protocol as a pure function: message in, answer out. No sockets, no clock, no thread of its own;
/// the TLS client and the simulator call the same code.
class ClientSession {
 public:
  /// `shard` lists the client's examples in kit.data.
  ClientSession(const ClientKit& kit, ClientId client, std::vector<std::uint32_t> shard);

  /// Answers one message from the server: an update, or a failure that says why (training diverged). `should_stop` is
  /// polled between batches. Throws ProtocolError for a message that no correct server sends, Interrupted when stopped.
  std::optional<Message> handle(const Message& message, const std::function<bool()>& should_stop);

 private:
  Message fail(const Task& task, const std::string& reason) const;
  Message train(const Task& task, const std::function<bool()>& should_stop);
  Message answer_securely(const Task& task, const TrainingResult& result, std::uint32_t weight, Rng& rng);
  Message evaluate(const Task& task, const std::function<bool()>& should_stop);

  ClientKit kit_;
  ClientId client_;
  std::vector<std::uint32_t> training_;
  std::vector<std::uint32_t> held_out_;
};

/// The integer weight of an update: examples up to `cap`, scaled into 16 bits when the cap is above 65535.
std::uint32_t update_weight(std::size_t examples, std::int64_t cap, bool uniform);

/// How many of `shard_size` examples are trained on when `holdout` is kept back; at least one.
std::size_t training_size(std::size_t shard_size, double holdout);

}  // namespace fl
