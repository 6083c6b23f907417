#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

#include "fl_core/net/probe.h"
#include "fl_core/wire/control.h"
#include "tests/net_support/net/loopback.h"

namespace fl::test {

/// How a server answered to one attempt to come in.
struct KnockResult {
  bool welcomed = false;
  bool answered = false;    ///< it sent at least one frame
  std::string words;        ///< the refusal's reason, or what ended the connection
};
/// Shakes hands with the aggregator as `context` says, says hello, and reads the answer.
KnockResult knock(std::uint16_t port, const TlsContext& context, const ProbeManners& manners = {});

/// The hello of a client whose examples fit `federation`.
Hello fitting_hello(const Loopback& federation);

/// A client with a valid certificate that a test drives frame by frame: it knows how to be honest, and need not be. One thread.
class HostileClient {
 public:
  /// Connects straight to the aggregator as client `number` of the federation, and is welcomed.
  HostileClient(const Loopback& federation, std::size_t number);

  /// The next frame of this type; others are skipped. Throws Error when the connection ends before.
  Frame await(FrameType type);
  /// The next training task, its weights fetched when they travel as a blob.
  Message await_task();
  /// The request of the last task.
  std::uint64_t request() const { return task_.head.request; }
  const Welcome& welcome() const { return welcome_; }

  void send(const Frame& frame);
  void send_bytes(std::span<const std::byte> bytes);
  /// The honest answer to a task, as a frame of this request.
  Frame honest_update(const Message& task, std::uint64_t request) const;
  /// The same with a header and a delta that were tampered with; the delta is written with the codec identity.
  using Tamper = std::function<void(UpdateHeader& header, std::vector<float>& delta)>;
  Frame tampered_update(const Message& task, std::uint64_t request, const Tamper& tamper) const;

  /// Reads until the connection ends. The refusal's reason when there is one, else what ended it; "welcome to stay" when the
  /// server still answers to a heartbeat.
  std::string verdict();
  Probe& probe() { return probe_; }

 private:
  const Loopback& federation_;
  std::size_t number_;
  std::shared_ptr<const TlsContext> context_;
  Probe probe_;
  Welcome welcome_;
  Frame task_;
};

}  // namespace fl::test
