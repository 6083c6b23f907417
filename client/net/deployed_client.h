#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "client/client_config.h"
#include "client/net/client_event.h"
#include "fl_core/base/error.h"
#include "fl_core/wire/message.h"
#include "privacy/noise/noise_keys.h"

namespace fl {

/// What the program around a client may set. Everything may be empty.
struct ClientHooks {
  /// On the worker thread, before its first model (LibTorch's threads).
  std::function<void()> worker_setup;
  /// On the I/O thread. Must not block.
  std::function<void(const ClientEvent&)> on_event;
  /// Instead of training, on the worker thread: the answer to a task. No model is built then; no task may have a longer body than
  /// `max_task_bytes`.
  std::function<Message(const Message& task, const std::function<bool()>& should_stop)> answer;
  std::uint64_t max_task_bytes = std::uint64_t{4} << 30U;
  /// Whether training is allowed: asked twice a second, on the I/O thread; `training` says that it goes on. Default: limits of
  /// the configuration.
  std::function<Permission(bool training)> policy;
  /// Draws from [0, 1) for waits between connections; default: the operating system's generator.
  std::function<double()> uniform;
  std::string software = "tributary";
  /// Where the noise of a privacy promise comes from; default: SecureNoiseKeys. Tests put seeded ones.
  std::shared_ptr<NoiseKeys> noise_keys;
};

/// A client of a deployed federation: connects, trains what it is asked to, delivers, reconnects, until it is stopped or (when
/// configured) the run is over.
///
/// Threads: run() is the I/O thread; a worker owns model and trainer; a third hashes and writes. No globals, no signals: several
/// clients may live in one process.
class DeployedClient {
 public:
  /// Opens the state folder. Throws ConfigError, IoError.
  DeployedClient(ClientConfig config, LocalData data, ClientHooks hooks = {});
  ~DeployedClient();
  DeployedClient(const DeployedClient&) = delete;
  DeployedClient& operator=(const DeployedClient&) = delete;

  /// Until the end. ExitCode::ok: the run is over; ExitCode::interrupted: request_stop(). Throws ConfigError for what the operator
  /// has to correct (the server refuses this identity or these data), with one line that says so. Call it once.
  ExitCode run();
  /// From any thread, at any time, also before run(). Training is interrupted, the server is told, answers stay in the state folder.
  void request_stop(const std::string& reason = "the client was stopped");

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fl
