#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>
#include <variant>

#include "fl_core/base/buffer.h"

namespace fl {

/// Reads the one form of CBOR that our headers have: a map of text keys to integers and text, definite lengths, shortest
/// encodings. nlohmann::json::from_cbor is not used on purpose: it recurses once for each byte of an indefinite-length
/// string, so a hostile header of 64 KiB could exhaust the stack.
///
/// Ask for each key once, then call finish(), which refuses keys that nobody asked for. Everything throws ProtocolError
/// "malformed WHAT: …".
class HeaderReader {
 public:
  /// Parses all of `bytes`, which must outlive nothing: the fields are copied. At most limits::kHeaderBytes.
  HeaderReader(std::span<const std::byte> bytes, const char* what);

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
  /// 0 or 1.
  bool flag(const char* key);
  /// UTF-8 without control characters.
  std::string text(const char* key, std::size_t limit_bytes);
  /// Exactly `digits` lower-case hexadecimal digits; with `may_be_empty` also "".
  std::string hex(const char* key, std::size_t digits, bool may_be_empty = false);

  void finish() const;
  [[noreturn]] void fail(const std::string& got) const;

 private:
  /// CBOR major type 0, or 1 that fits, or text.
  using Field = std::variant<std::uint64_t, std::int64_t, std::string>;

  Field take(const char* key);
  std::pair<unsigned, std::uint64_t> read_head();
  unsigned next();
  std::string read_text(std::uint64_t size);
  Field read_value();
  void read_map();

  const char* what_;
  std::span<const std::byte> bytes_;
  std::size_t at_ = 0;
  std::map<std::string, Field> fields_;
};

/// The CBOR of a flat JSON object of integers and texts.
SharedBuffer encode_header(const nlohmann::json& header);

/// At most `limit_bytes` of the text, control characters and bad UTF-8 replaced, not cut inside a character.
std::string cleaned_text(const std::string& text, std::size_t limit_bytes);

}  // namespace fl
