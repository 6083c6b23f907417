#pragma once

#include <cstdint>
#include <string>

#include "fl_core/round/types.h"
#include "fl_core/wire/frame.h"

/// The link's own frames as values. Every encode_ has a parse_ that throws ProtocolError for a wrong type, a missing, extra or
/// ill-typed field, a value out of range, or a body, round or request number where none belongs.
namespace fl {

inline constexpr std::uint32_t kProtocolVersion = 1;

/// Client -> server, first frame of a connection.
struct Hello {
  std::uint32_t protocol = kProtocolVersion;
  std::string software;          ///< "tributary 0.1.0"; for the registry only
  std::uint64_t examples = 0;    ///< local examples
  std::string input;             ///< shape of one example, "1x28x28"
  std::uint32_t classes = 0;
  std::uint32_t threads = 1;     ///< it may use
  std::string plan_sha256;       ///< of the plan it holds, 64 hex digits; empty for none
  bool ready = true;             ///< its policy allows training now
};

/// Server -> client. The body is the plan (a JSON document: what the client must know about the experiment), empty when the
/// client holds it already.
struct Welcome {
  std::uint32_t protocol = kProtocolVersion;
  std::string run;               ///< identity of the run, 32 hex digits; a pending update of another run is dropped
  ClientId client = 0;           ///< this client's number in the run: keys its random streams
  std::uint32_t heartbeat_s = 15;
  std::string plan_sha256;
  SharedBuffer plan;
};

/// Why a connection is ended by the server. Numbers on the wire: only append.
enum class Refusal : std::uint8_t {
  busy = 0,            ///< too many sessions; come back
  not_admitted = 1,    ///< the identity is not on the list
  protocol = 2,        ///< the client broke the protocol, or speaks another version
  mismatch = 3,        ///< its data do not fit the experiment
  fenced = 4,          ///< a newer connection of the same identity took over
  revoked = 5,         ///< its certificate was revoked
  flood = 6,           ///< too many frames or bytes
};
struct Refused {
  Refusal code = Refusal::busy;
  std::string reason;
  std::uint32_t retry_s = 0;     ///< come back after this long (and jitter); 0: the operator has to act first
};

struct Heartbeat {
  bool ready = true;             ///< false: policy forbids training now; the client is not asked
  std::uint32_t training_round = 0;  ///< 0 when idle
};

struct Fetch {
  BlobReference blob;            ///< size_bytes as in the task
  std::uint64_t offset = 0;      ///< bytes that the client holds already
};

/// Server -> client: the task is settled. The client stops working on it and forgets its answer.
struct Receipt {
  Outcome outcome = Outcome::accepted;
};

struct Goodbye {
  std::string reason;
  std::uint32_t retry_s = 0;     ///< from the server: come back after this long, and jitter
  bool finished = false;         ///< from the server: the run is over
};

Frame encode(const Hello& hello);
Frame encode(const Welcome& welcome);
Frame encode(const Refused& refused);
Frame encode(const Heartbeat& heartbeat, std::uint64_t request);
Frame encode_heartbeat_reply(std::uint64_t request);
Frame encode(const Fetch& fetch, std::uint64_t request);
/// `piece` is `bytes` of the blob from `offset` on, at most limits::kChunkBytes; copied only as a pointer.
Frame encode_chunk(std::uint64_t request, std::uint64_t offset, SharedBuffer piece);
Frame encode_grant(std::uint64_t request, std::uint64_t offset);
Frame encode(const Receipt& receipt, std::uint64_t request, std::uint32_t round);
Frame encode(const Goodbye& goodbye);

Hello parse_hello(const Frame& frame);
Welcome parse_welcome(const Frame& frame);
Refused parse_refused(const Frame& frame);
Heartbeat parse_heartbeat(const Frame& frame);
void parse_heartbeat_reply(const Frame& frame);
Fetch parse_fetch(const Frame& frame);
/// The offset; the piece is the frame's body, which may not be empty.
std::uint64_t parse_chunk(const FrameHeader& head, std::span<const std::byte> header);
std::uint64_t parse_grant(const Frame& frame);
Receipt parse_receipt(const Frame& frame);
Goodbye parse_goodbye(const Frame& frame);

}  // namespace fl
