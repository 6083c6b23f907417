#include "fl_core/wire/message.h"

#include <array>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

using nlohmann::json;

/// A header field: CBOR major type 0 or 1 that fits, or text.
using Field = std::variant<std::uint64_t, std::int64_t, std::string>;

/// Whether `text` is well-formed UTF-8 (RFC 3629) without control characters, which could steer a terminal or forge a line
/// of a log.
bool is_clean_text(const std::string& text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto byte = [&](std::size_t at) { return at < text.size() ? static_cast<unsigned char>(text[at]) : 0U; };
    const unsigned first = byte(i);
    const std::size_t length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
    if (length == 0) return false;
    std::uint32_t point = length == 1 ? first : first & (0x7fU >> length);
    for (std::size_t k = 1; k < length; ++k) {
      if ((byte(i + k) & 0xc0U) != 0x80) return false;
      point = point << 6 | (byte(i + k) & 0x3fU);
    }
    constexpr std::array<std::uint32_t, 5> kLowest = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = point >= 0xd800 && point <= 0xdfff;
    const bool control = point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x2028 || point == 0x2029;
    if (point < kLowest[length] || point > 0x10ffff || surrogate || control) return false;
    i += length;
  }
  return true;
}

/// Reads the one form of CBOR that our headers have: a map of text keys to integers and text, definite lengths, shortest
/// encodings. nlohmann::json::from_cbor is not used on purpose: it recurses once for each byte of an indefinite-length
/// string, so a hostile header of 64 KiB could exhaust the stack.
class HeaderReader {
 public:
  HeaderReader(const Message& message, MessageType type, const char* what)
      : what_(what), bytes_(message.header().span()) {
    if (message.type() != type) fail("message type " + std::to_string(static_cast<unsigned>(message.type())));
    if (bytes_.size() > limits::kHeaderBytes) {
      fail("header of " + std::to_string(bytes_.size()) + " bytes, the limit is " + std::to_string(limits::kHeaderBytes));
    }
    read_map();
    std::uint32_t round = 0;
    integer("round", round);
    if (round != message.round()) {
      fail("round " + std::to_string(round) + " in a message of round " + std::to_string(message.round()));
    }
  }

  [[noreturn]] void fail(const std::string& got) const { throw ProtocolError(std::string("malformed ") + what_ + ": " + got); }

  template <class Integer>
  void integer(const char* key, Integer& out, Integer low = std::numeric_limits<Integer>::min(),
               Integer high = std::numeric_limits<Integer>::max()) {
    const Field field = take(key);
    const auto* positive = std::get_if<std::uint64_t>(&field);
    const auto* negative = std::get_if<std::int64_t>(&field);
    bool fits = positive != nullptr ? std::in_range<Integer>(*positive)
                                    : negative != nullptr && std::in_range<Integer>(*negative);
    if (fits) out = positive != nullptr ? static_cast<Integer>(*positive) : static_cast<Integer>(*negative);
    fits = fits && out >= low && out <= high;
    if (!fits) {
      fail(std::string("'") + key + "' must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
  }

  std::string text(const char* key, std::size_t limit_bytes) {
    const Field field = take(key);
    const auto* found = std::get_if<std::string>(&field);
    if (found == nullptr || found->size() > limit_bytes || !is_clean_text(*found)) {
      fail(std::string("'") + key + "' must be at most " + std::to_string(limit_bytes) +
           " bytes of UTF-8 without control characters");
    }
    return *found;
  }

  /// Every key must have been asked for.
  void finish() const {
    if (!fields_.empty()) fail("a header key that nobody expects");
  }

 private:
  Field take(const char* key) {
    const auto place = fields_.find(key);
    if (place == fields_.end()) fail(std::string("no '") + key + "' in the header");
    Field field = std::move(place->second);
    fields_.erase(place);
    return field;
  }

  /// The initial byte's major type and its argument (RFC 8949 §3).
  std::pair<unsigned, std::uint64_t> read_head() {
    const unsigned initial = next();
    const unsigned info = initial & 31U;
    if (info < 24) return {initial >> 5, info};
    if (info > 27) fail("the header is not CBOR of definite lengths");
    const unsigned size = 1U << (info - 24);
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value = value << 8 | next();
    const std::uint64_t lowest = size == 1 ? 24 : 1ULL << (4 * size);
    if (value < lowest) fail("an integer in the header is not in its shortest form");
    return {initial >> 5, value};
  }

  unsigned next() {
    if (at_ == bytes_.size()) fail("the header ends too early");
    return std::to_integer<unsigned>(bytes_[at_++]);
  }

  std::string read_text(std::uint64_t size) {
    if (size > bytes_.size() - at_) fail("the header ends too early");
    std::string text(reinterpret_cast<const char*>(bytes_.data()) + at_, static_cast<std::size_t>(size));
    at_ += static_cast<std::size_t>(size);
    return text;
  }

  Field read_value() {
    const auto [major, argument] = read_head();
    if (major == 0) return argument;
    if (major == 1 && argument <= static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return -1 - static_cast<std::int64_t>(argument);
    }
    if (major == 3) return read_text(argument);
    fail("a header value that is neither an integer nor text");
  }

  void read_map() {
    const auto [major, count] = read_head();
    if (major != 5) fail("the header is not a CBOR map");
    for (std::uint64_t i = 0; i < count; ++i) {  // ends early on a lying count: each entry needs at least two bytes
      const auto [key_major, key_size] = read_head();
      if (key_major != 3) fail("a header key is not text");
      const std::string key = read_text(key_size);
      if (!fields_.emplace(key, read_value()).second) fail("a header key appears twice");
    }
    if (at_ != bytes_.size()) fail("bytes after the header");
  }

  const char* what_;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::map<std::string, Field> fields_;
};

SharedBuffer encode_header(const json& header) {
  const std::vector<std::uint8_t> bytes = json::to_cbor(header);
  FL_CHECK(bytes.size() <= limits::kHeaderBytes, "message header too large");
  return SharedBuffer::copy_of(std::as_bytes(std::span(bytes)));
}

/// At most `limit_bytes` of the text, control characters and bad UTF-8 replaced, not cut inside a character.
std::string cleaned(const std::string& text, std::size_t limit_bytes) {
  std::string clean;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t length = 1;
    while (length < 4 && i + length < text.size() && (static_cast<unsigned char>(text[i + length]) & 0xc0U) == 0x80) ++length;
    std::string character = text.substr(i, length);
    if (!is_clean_text(character)) character = static_cast<unsigned char>(text[i]) < 0x20 ? " " : "?";
    if (clean.size() + character.size() > limit_bytes) break;
    clean += character;
    i += length;
  }
  return clean;
}

}  // namespace

Message encode_task(const Task& task) {
  const json header = {{"round", task.round},
                       {"model_version", task.model_version},
                       {"fingerprint", task.fingerprint}};
  const auto type = task.kind == TaskKind::train ? MessageType::train : MessageType::evaluate;
  return Message(type, task.round, encode_header(header), task.weights);
}

Task parse_task(const Message& message, const Layout& layout) {
  const bool evaluate = message.type() == MessageType::evaluate;
  HeaderReader header(message, evaluate ? MessageType::evaluate : MessageType::train, "task");
  Task task;
  task.kind = evaluate ? TaskKind::evaluate : TaskKind::train;
  task.round = message.round();
  header.integer("model_version", task.model_version);
  header.integer("fingerprint", task.fingerprint);
  header.finish();
  if (task.fingerprint != layout.fingerprint()) {
    header.fail("it is for a model with layout " + std::to_string(task.fingerprint) + ", this client has layout " +
                std::to_string(layout.fingerprint()) + "; give both the same 'model' section");
  }
  if (message.body().size() / sizeof(float) != layout.size() || message.body().size() % sizeof(float) != 0) {
    header.fail("body of " + std::to_string(message.body().size()) + " bytes, expected " +
                std::to_string(layout.size() * sizeof(float)));
  }
  task.weights = message.body();
  return task;
}

Message encode_update(const UpdateHeader& update, SharedBuffer encoded) {
  const json header = {{"round", update.round},
                       {"model_version", update.model_version},
                       {"fingerprint", update.fingerprint},
                       {"weight", update.weight},
                       {"steps", update.steps},
                       {"examples", update.metrics.examples},
                       {"correct", update.metrics.correct},
                       {"loss_units", update.metrics.loss_units},
                       {"codec", update.codec}};
  return Message(MessageType::update, update.round, encode_header(header), std::move(encoded));
}

UpdateHeader parse_update_header(const Message& message) {
  HeaderReader header(message, MessageType::update, "update");
  UpdateHeader update;
  update.round = message.round();
  header.integer("model_version", update.model_version);
  header.integer("fingerprint", update.fingerprint);
  header.integer<std::uint32_t>("weight", update.weight, 1, ExactSum::kMaxWeight);
  header.integer("steps", update.steps);
  header.integer<std::int64_t>("examples", update.metrics.examples, 0, limits::kClientExamples);
  header.integer<std::int64_t>("correct", update.metrics.correct, 0, update.metrics.examples);
  header.integer<std::int64_t>("loss_units", update.metrics.loss_units, 0);
  update.codec = header.text("codec", limits::kNameBytes);
  header.finish();
  return update;
}

Message encode_failure(std::uint32_t round, const std::string& reason) {
  const json header = {{"round", round}, {"reason", cleaned(reason, limits::kReasonBytes)}};
  return Message(MessageType::failed, round, encode_header(header), SharedBuffer());
}

std::string parse_failure(const Message& message) {
  HeaderReader header(message, MessageType::failed, "failure notice");
  std::string reason = header.text("reason", limits::kReasonBytes);
  header.finish();
  if (message.body().size() != 0) header.fail("it has a body");
  return reason;
}

}  // namespace fl
