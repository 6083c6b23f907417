// Tasks, updates, failure notices and steps of secure aggregation from a peer. An input is the message's type (1 byte), its round (4, little-endian), the
// length of its header (2, little-endian), the header, and the body. It is also read as the values of an update's fields, because
// blind edits of a header seldom leave it well-formed.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/params/layout.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"
#include "fl_core/wire/message.h"

namespace fl {
namespace {

constexpr std::size_t kPrefixBytes = 7;

Message message_of_input(std::span<const std::byte> input) {
  const auto byte = [&](std::size_t at) { return std::to_integer<std::uint32_t>(input[at]); };
  const std::uint32_t round = byte(1) | byte(2) << 8 | byte(3) << 16 | byte(4) << 24;
  const std::span<const std::byte> rest = input.subspan(kPrefixBytes);
  const std::size_t header_bytes = std::min<std::size_t>(byte(5) | byte(6) << 8, rest.size());
  return Message(static_cast<MessageType>(byte(0)), round, SharedBuffer::copy_of(rest.first(header_bytes)),
                 SharedBuffer::copy_of(rest.subspan(header_bytes)));
}

/// The shortest encoding is the only one that is accepted, so writing what was read gives as many bytes (keys may be in
/// another order).
void check_size(const Message& written, const Message& read) {
  FL_CHECK(written.header().size() == read.header().size(), "an accepted header has two encodings");
}

void fuzz_task(const Message& message) {
  static const Layout layout({{"0.weight", {4, 3}}, {"0.bias", {4}}});
  const Task task = parse_task(message, layout);
  FL_CHECK(task.weights.size() == layout.size() * sizeof(float), "a task with too few weights");
  check_size(encode_task(task), message);
}

void fuzz_update(const Message& message) {
  const UpdateHeader update = parse_update_header(message);
  FL_CHECK(update.weight >= 1 && update.weight <= ExactSum::kMaxWeight, "a weight out of range");
  FL_CHECK(update.metrics.correct >= 0 && update.metrics.correct <= update.metrics.examples, "more correct than examples");
  FL_CHECK(update.metrics.examples <= limits::kClientExamples && update.metrics.loss_units >= 0, "a count out of range");
  check_size(encode_update(update, message.body()), message);
}

void fuzz_failure(const Message& message) {
  const std::string reason = parse_failure(message);
  FL_CHECK(reason.size() <= limits::kReasonBytes, "a reason that is too long");
  FL_CHECK(cleaned_text(reason, limits::kReasonBytes) == reason, "a reason with control characters or bad UTF-8");
  check_size(encode_failure(message.round(), reason), message);
}

void fuzz_secure(const Message& message) {
  const SecureHeader secure = parse_secure_header(message);
  FL_CHECK(secure.round == message.round(), "another round");
  FL_CHECK(secure.step >= (message.type() == MessageType::secure_step ? 2U : 1U) && secure.step <= kSecureSteps, "a step that there is not");
  check_size(encode_secure(message.type(), secure, message.body()), message);
}

/// The next value of the input, filled up with zeros.
template <class Value>
Value take(std::span<const std::byte>& input) {
  Value value{};
  const std::size_t size = std::min(sizeof value, input.size());
  std::memcpy(&value, input.data(), size);
  input = input.subspan(size);
  return value;
}

/// What the other end may write: an update with any values. It is refused, or comes back as it was.
void fuzz_fields(std::span<const std::byte> input) {
  UpdateHeader update;
  update.round = take<std::uint32_t>(input);
  update.model_version = take<std::uint32_t>(input);
  update.fingerprint = take<std::uint64_t>(input);
  update.weight = take<std::uint32_t>(input);
  update.steps = take<std::uint32_t>(input);
  update.metrics.examples = take<std::int64_t>(input);
  update.metrics.correct = take<std::int64_t>(input);
  update.metrics.loss_units = take<std::int64_t>(input);
  update.codec.assign(reinterpret_cast<const char*>(input.data()), input.size());
  const Message written = encode_update(update, SharedBuffer());
  fuzz_update(written);
  const UpdateHeader read = parse_update_header(written);
  FL_CHECK(encode_update(read, SharedBuffer()).header().size() == written.header().size() && read.weight == update.weight &&
               read.codec == update.codec && read.metrics.examples == update.metrics.examples,
           "an update came back as another");
}

void fuzz_one(std::span<const std::byte> input) {
  try {
    fuzz_fields(input);
  } catch (const ProtocolError&) {
  }
  if (input.size() < kPrefixBytes) return;
  const Message message = message_of_input(input);
  // Every parser sees every message: a peer may answer a task with any of them.
  for (const auto parse : {fuzz_task, fuzz_update, fuzz_failure, fuzz_secure}) {
    try {
      parse(message);
    } catch (const ProtocolError&) {
    }
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
