#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "fl_core/base/buffer.h"

namespace fl {

/// No header has more keys.
inline constexpr std::size_t kHeaderKeys = 16;

/// A key and its value: an integer or text, as CBOR has them (RFC 8949 §3.1). Only looks at its texts.
struct HeaderField {
  enum class Kind : std::uint8_t { positive = 0, negative = 1, text = 3 };  // CBOR's major types

  HeaderField() = default;
  template <std::integral Integer>
    requires(!std::same_as<Integer, bool>)
  HeaderField(std::string_view name, Integer value)
      : key(name), kind(value < 0 ? Kind::negative : Kind::positive), number(static_cast<std::uint64_t>(value < 0 ? -1 - value : value)) {}
  HeaderField(std::string_view name, std::string_view value) : key(name), kind(Kind::text), text(value) {}

  std::string_view key;
  Kind kind = Kind::positive;
  std::uint64_t number = 0;  ///< of a negative one: -1 - its value
  std::string_view text;
};

/// Reads the one form of CBOR that our headers have: a map of text keys to integers and text, definite lengths, shortest
/// encodings. nlohmann::json::from_cbor is not used on purpose: it recurses once for each byte of an indefinite-length
/// string, so a hostile header of 64 KiB could exhaust the stack.
///
/// Ask for each key once, then call finish(), which refuses keys that nobody asked for. Everything throws ProtocolError
/// "malformed WHAT: …".
class HeaderReader {
 public:
  /// Parses all of `bytes`, which outlive the reader. At most limits::kHeaderBytes.
  HeaderReader(std::span<const std::byte> bytes, const char* what);

  template <class Integer>
  void integer(const char* key, Integer& out, Integer low = std::numeric_limits<Integer>::min(),
               Integer high = std::numeric_limits<Integer>::max()) {
    const HeaderField field = take(key);
    const std::int64_t negative = -1 - static_cast<std::int64_t>(field.number);
    const bool fits = (field.kind == HeaderField::Kind::positive && std::in_range<Integer>(field.number)) ||
                      (field.kind == HeaderField::Kind::negative && std::in_range<Integer>(negative));
    if (fits) out = field.kind == HeaderField::Kind::positive ? static_cast<Integer>(field.number) : static_cast<Integer>(negative);
    if (!fits || out < low || out > high) {
      fail(std::string("'") + key + "' must be an integer from " + std::to_string(low) + " to " + std::to_string(high));
    }
  }
  /// 0 or 1.
  bool flag(const char* key);
  /// UTF-8 without control characters.
  std::string text(const char* key, std::size_t limit_bytes);
  /// Exactly `digits` lower-case hexadecimal digits; with `may_be_empty` also "".
  std::string hex(const char* key, std::size_t digits, bool may_be_empty = false);

  void finish() const;
  [[noreturn]] void fail(const std::string& got) const;

 private:
  HeaderField take(const char* key);
  std::pair<unsigned, std::uint64_t> read_head();
  unsigned next();
  std::string_view read_text(std::uint64_t size);
  HeaderField read_value();
  void read_map();

  const char* what_;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::array<HeaderField, kHeaderKeys> fields_;  ///< those that nobody has asked for yet
  std::size_t count_ = 0;
};

/// The CBOR of these keys, in any order: it has them in the order of their bytes. At most kHeaderKeys, each once.
SharedBuffer encode_fields(std::span<const HeaderField> fields);
/// encode_header({{"round", 3}, {"codec", "identity"}})
inline SharedBuffer encode_header(std::initializer_list<HeaderField> fields) { return encode_fields({fields.begin(), fields.size()}); }

/// At most `limit_bytes` of the text, control characters and bad UTF-8 replaced, not cut inside a character.
std::string cleaned_text(const std::string& text, std::size_t limit_bytes);

}  // namespace fl
