#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "fl_core/base/buffer.h"
#include "fl_core/codec/codec.h"
#include "fl_core/round/types.h"

namespace fl {

/// Numbers on the wire: never renumber, only append.
enum class MessageType : std::uint8_t {
  train = 1,     ///< server -> client: fit these weights
  update = 2,    ///< client -> server: what training or measuring gave
  failed = 3,    ///< client -> server: the task could not be done; the header says why
  evaluate = 4,  ///< server -> client: measure these weights
  secure_step = 5,    ///< server -> client: the next step of secure aggregation
  secure_answer = 6,  ///< client -> server: what a step of secure aggregation gave
};

/// What travels: a type, the round, a small CBOR header, and raw bytes that several messages may share.
class Message {
 public:
  // A constructor on purpose: g++ 12 destroys aggregate temporaries inside co_await expressions twice.
  Message(MessageType type, std::uint32_t round, SharedBuffer header, SharedBuffer body)
      : type_(type), round_(round), header_(std::move(header)), body_(std::move(body)) {}

  MessageType type() const { return type_; }
  std::uint32_t round() const { return round_; }
  const SharedBuffer& header() const { return header_; }
  const SharedBuffer& body() const { return body_; }
  /// Header and body; the frame around them adds a constant.
  std::uint64_t size_bytes() const { return header_.size() + body_.size(); }

 private:
  MessageType type_;
  std::uint32_t round_;
  SharedBuffer header_;
  SharedBuffer body_;
};

/// Task <-> message. The body is the raw float[N]; parse_task does not copy it.
Message encode_task(const Task& task);
/// Throws ProtocolError for anything but a well-formed task whose body has `layout.size()` floats and whose fingerprint
/// is that of `layout`.
Task parse_task(const Message& message, const Layout& layout);

/// What an update's header says; the delta is still encoded.
struct UpdateHeader {
  std::uint32_t round = 0;
  std::uint32_t model_version = 0;
  std::uint64_t fingerprint = 0;
  std::uint32_t weight = 0;
  std::uint32_t steps = 0;
  ClientMetrics metrics;
  std::string codec;
};
/// `encoded` is the codec's output; empty for an evaluation.
Message encode_update(const UpdateHeader& header, SharedBuffer encoded);
/// Checks types, ranges (1 <= weight <= kMaxWeight, counts >= 0) and sizes; throws ProtocolError. The body is not looked at.
UpdateHeader parse_update_header(const Message& message);

/// What the header of a secure_step or secure_answer says; the body is the step's (client/secure_session.h). A round under secure
/// aggregation begins with `train`, whose answer is a secure_answer of step 1; steps 2 to 5 are a secure_step and its answer each.
struct SecureHeader {
  std::uint32_t round = 0;
  std::uint32_t model_version = 0;
  std::uint64_t fingerprint = 0;
  std::uint32_t step = 1;  ///< 1 … kSecureSteps
};
inline constexpr std::uint32_t kSecureSteps = 5;
/// `type`: secure_step or secure_answer.
Message encode_secure(MessageType type, const SecureHeader& header, SharedBuffer body);
/// Checks types, ranges and sizes; throws ProtocolError. The body is not looked at.
SecureHeader parse_secure_header(const Message& message);

/// Client -> server: "I could not do it, because …" (at most limits::kReasonBytes of the reason travel).
Message encode_failure(std::uint32_t round, const std::string& reason);
std::string parse_failure(const Message& message);

}  // namespace fl
