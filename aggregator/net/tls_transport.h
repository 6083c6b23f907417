#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "aggregator/net/desk.h"
#include "aggregator/net/reception.h"
#include "aggregator/status.h"
#include "aggregator/store/journal.h"
#include "fl_core/transport/transport.h"

namespace fl {

struct TlsTransportOptions {
  ReceptionOptions reception;
  DeskOptions desk;                 ///< `run` and `listed` numbers are kept in the store
  std::uint64_t minimum_clients = 1;  ///< roster() waits for so many
  std::uint64_t minimum_at_start = 0; ///< and for so many when it is called first
  std::function<bool()> should_stop;  ///< polled while the engine waits; then Interrupted is thrown
  /// Called by roster() while too few clients are there, a few times a second.
  std::function<void(std::uint64_t ready, std::uint64_t minimum)> on_waiting;
};

/// The mailbox over TLS: real devices, real time. One I/O thread serves all connections; the engine's thread is the caller.
/// Between them there are only immutable buffers, orders in one direction and arrivals in the other.
///
/// An upload takes memory only while it has a credit (DeskOptions::uploads); the credit returns when the engine has let go of
/// the message. The I/O thread decrypts, a second one hashes each piece while the next is decrypted, and the engine folds an upload that is
/// whole and what its sender said: nothing of one that breaks off or lies ever reaches the sum.
class TlsTransport final : public Transport {
 public:
  /// Opens the port and lets clients in. The store is used by the engine's thread only, inside roster() and committed().
  TlsTransport(TlsTransportOptions options, Store& store, StatusBoard& status);
  /// Closes every connection at once; finish() is the polite way.
  ~TlsTransport() override;

  Roster roster() override;
  void send(ClientId client, const Message& message) override;
  std::optional<Arrival> wait(Seconds deadline) override;
  std::optional<Arrival> poll() override;
  void close_round(std::uint32_t round) override;
  void committed(const RoundReport& report) override;
  Seconds now() const override;
  void while_waiting(std::function<void()> look) override;

  /// Sets the clock of a resumed run.
  void start_at(Seconds time);
  std::uint16_t port() const;
  /// Reads certificates and the revocation list again.
  void reload();
  /// Says goodbye to all clients and waits until they have heard it, at most a few seconds.
  void finish(const Goodbye& last);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// The run's identity in the store: made on first use.
std::string run_identity(Store& store);

}  // namespace fl
