#include "fl_core/wire/header.h"

#include <algorithm>
#include <bit>

#include "fl_core/base/error.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

/// Whether `text` is well-formed UTF-8 (RFC 3629) without control characters, which could steer a terminal or forge a line
/// of a log.
bool is_clean_text(std::string_view text) {
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

constexpr const char* kStranger = "a header key that nobody expects";

/// Bytes of an argument that follow its initial byte in the shortest form (RFC 8949 §3).
unsigned argument_bytes(std::uint64_t argument) {
  if (argument < 24) return 0;
  if (argument <= 0xff) return 1;
  if (argument <= 0xffff) return 2;
  return argument <= 0xffffffff ? 4 : 8;
}

std::size_t text_bytes(std::string_view text) { return 1 + argument_bytes(text.size()) + text.size(); }

std::size_t field_bytes(const HeaderField& field) {
  return text_bytes(field.key) + (field.kind == HeaderField::Kind::text ? text_bytes(field.text) : 1 + argument_bytes(field.number));
}

std::byte* write_head(unsigned major, std::uint64_t argument, std::byte* out) {
  const unsigned size = argument_bytes(argument);
  const auto info = size == 0 ? static_cast<unsigned>(argument) : 24U + static_cast<unsigned>(std::countr_zero(size));
  *out++ = static_cast<std::byte>(major << 5U | info);
  for (unsigned i = size; i > 0; --i) *out++ = static_cast<std::byte>(argument >> 8 * (i - 1));
  return out;
}

std::byte* write_text(std::string_view text, std::byte* out) {
  return std::ranges::copy(std::as_bytes(std::span(text)), write_head(3, text.size(), out)).out;
}

std::byte* write_field(const HeaderField& field, std::byte* out) {
  out = write_text(field.key, out);
  return field.kind == HeaderField::Kind::text ? write_text(field.text, out) : write_head(static_cast<unsigned>(field.kind), field.number, out);
}

}  // namespace

HeaderReader::HeaderReader(std::span<const std::byte> bytes, const char* what) : what_(what), bytes_(bytes) {
  if (bytes_.size() > limits::kHeaderBytes) {
    fail("header of " + std::to_string(bytes_.size()) + " bytes, the limit is " + std::to_string(limits::kHeaderBytes));
  }
  read_map();
}

void HeaderReader::fail(const std::string& got) const { throw ProtocolError(std::string("malformed ") + what_ + ": " + got); }

bool HeaderReader::flag(const char* key) {
  unsigned value = 0;
  integer<unsigned>(key, value, 0, 1);
  return value == 1;
}

std::string HeaderReader::text(const char* key, std::size_t limit_bytes) {
  const HeaderField field = take(key);
  if (field.kind != HeaderField::Kind::text || field.text.size() > limit_bytes || !is_clean_text(field.text)) {
    fail(std::string("'") + key + "' must be at most " + std::to_string(limit_bytes) +
         " bytes of UTF-8 without control characters");
  }
  return std::string(field.text);
}

std::string HeaderReader::hex(const char* key, std::size_t digits, bool may_be_empty) {
  const std::string found = text(key, digits);
  const bool right = found.find_first_not_of("0123456789abcdef") == std::string::npos &&
                     (found.size() == digits || (may_be_empty && found.empty()));
  if (!right) fail(std::string("'") + key + "' must be " + std::to_string(digits) + " lower-case hexadecimal digits");
  return found;
}

void HeaderReader::finish() const {
  if (count_ != 0) fail(kStranger);
}

HeaderField HeaderReader::take(const char* key) {
  const auto end = fields_.begin() + static_cast<std::ptrdiff_t>(count_);
  const auto place = std::find_if(fields_.begin(), end, [name = std::string_view(key)](const HeaderField& field) { return field.key == name; });
  if (place == end) fail(std::string("no '") + key + "' in the header");
  return std::exchange(*place, fields_[--count_]);
}

/// The initial byte's major type and its argument (RFC 8949 §3).
std::pair<unsigned, std::uint64_t> HeaderReader::read_head() {
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

unsigned HeaderReader::next() {
  if (at_ == bytes_.size()) fail("the header ends too early");
  return std::to_integer<unsigned>(bytes_[at_++]);
}

std::string_view HeaderReader::read_text(std::uint64_t size) {
  if (size > bytes_.size() - at_) fail("the header ends too early");
  const std::string_view text(reinterpret_cast<const char*>(bytes_.data()) + at_, static_cast<std::size_t>(size));
  at_ += static_cast<std::size_t>(size);
  return text;
}

HeaderField HeaderReader::read_value() {
  const auto [major, argument] = read_head();
  HeaderField field;
  field.kind = static_cast<HeaderField::Kind>(major);
  field.number = argument;
  if (major == 0 || (major == 1 && std::in_range<std::int64_t>(argument))) return field;
  if (major != 3) fail("a header value that is neither an integer nor text");
  field.text = read_text(argument);
  return field;
}

void HeaderReader::read_map() {
  const auto [major, count] = read_head();
  if (major != 5) fail("the header is not a CBOR map");
  for (std::uint64_t i = 0; i < count; ++i) {  // ends early on a lying count: each entry needs at least two bytes
    const auto [key_major, key_size] = read_head();
    if (key_major != 3) fail("a header key is not text");
    const std::string_view key = read_text(key_size);
    HeaderField field = read_value();
    field.key = key;
    for (std::size_t k = 0; k < count_; ++k) {
      if (fields_[k].key == key) fail("a header key appears twice");
    }
    if (count_ == kHeaderKeys) fail(kStranger);
    fields_[count_++] = field;
  }
  if (at_ != bytes_.size()) fail("bytes after the header");
}

SharedBuffer encode_fields(std::span<const HeaderField> fields) {
  FL_CHECK(fields.size() <= kHeaderKeys, "a header of too many keys");
  std::array<const HeaderField*, kHeaderKeys> places{};
  std::size_t size = 1;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    places[i] = &fields[i];
    size += field_bytes(fields[i]);
  }
  FL_CHECK(size <= limits::kHeaderBytes, "message header too large");
  const std::span sorted(places.data(), fields.size());
  std::ranges::sort(sorted, {}, &HeaderField::key);
  FL_CHECK(std::ranges::adjacent_find(sorted, {}, &HeaderField::key) == sorted.end(), "a header has a key twice");
  Bytes bytes = Bytes::uninitialised(size);
  std::byte* out = write_head(5, fields.size(), bytes.data());
  for (const HeaderField* field : sorted) out = write_field(*field, out);
  return SharedBuffer(std::move(bytes));
}

std::string cleaned_text(const std::string& text, std::size_t limit_bytes) {
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

}  // namespace fl
