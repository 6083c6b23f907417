#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "fl_core/round/types.h"
#include "fl_core/wire/message.h"

namespace fl {

/// One thing that came in for the engine.
struct Arrival {
  enum class Kind : std::uint8_t {
    message,  ///< the client's answer
    left,     ///< the client is gone, or was gone when the task was sent to it
    closed,   ///< close_round() withdrew the task before it was answered
  };
  Kind kind = Kind::left;
  ClientId client = 0;
  std::uint32_t round = 0;  ///< of the send that this answers
  Seconds time = 0;         ///< when it arrived, on the transport's clock
  std::optional<Message> message;
  /// The update is part of take_sum() already: `message` comes without its body, which had so many bytes.
  std::optional<std::uint64_t> summed_bytes{};
};

/// What updates come to that were added up on their way (ExactSum::raw() over all of them).
struct PartialSum {
  std::span<const std::int64_t> values;  ///< int64[N], valid until the transport's next call
  std::uint64_t terms = 0;
  std::uint64_t weight = 0;
};

/// Who can be asked. Without `ids` everybody from 0 to size - 1, so that a million simulated clients cost nothing.
struct Roster {
  std::uint64_t size = 0;
  std::vector<ClientId> ids;  ///< empty, or `size` ids, ascending

  ClientId at(std::uint64_t place) const { return ids.empty() ? place : ids[place]; }
};

/// The mailbox between the round engine and its clients: the only thing that differs between simulation and deployment.
/// Called by the engine's thread alone.
///
/// Contract:
///  - roster() names the clients that can be asked now. A deployment waits until enough of them are there. May throw Interrupted.
///  - send() never blocks on a peer and every send is answered by exactly one arrival with its client and round.
///  - wait() returns the next arrival, or nothing once now() has reached `deadline`; with `deadline` kNever it blocks until
///    something arrives. With nothing outstanding and a finite deadline it lets the time pass.
///  - Arrivals come in order of their time; now() never goes back.
///  - After close_round(r) tasks of round r that were not answered yet come back as `closed` (or as their message, when it
///    was already on its way). The engine drops both.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual Roster roster() = 0;
  virtual void send(ClientId client, const Message& message) = 0;
  virtual std::optional<Arrival> wait(Seconds deadline) = 0;
  /// An arrival that is here already, as wait() gives it; nothing where there is none, or where that cannot be told (in virtual time).
  virtual std::optional<Arrival> poll() { return std::nullopt; }
  virtual void close_round(std::uint32_t round) = 0;
  /// The updates of the round that was just closed whose arrival said that they were added up on their way; nothing where there are none.
  virtual std::optional<PartialSum> take_sum() { return std::nullopt; }
  /// The round with this report is on disk: an answer that it counted can never be needed again.
  virtual void committed(const RoundReport&) {}
  virtual Seconds now() const = 0;
  /// From now on `look` may be called on the engine's thread, a few times a second, while roster() and wait() have nothing to return; empty:
  /// no longer. What it throws they throw. For waits in real time: where clients are simulated there is always something soon.
  virtual void while_waiting(std::function<void()> /*look*/) {}
};

}  // namespace fl
