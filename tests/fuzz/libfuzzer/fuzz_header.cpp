// The CBOR header of every frame and message. What our reader accepts is compared with what nlohmann/json makes of it.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

using nlohmann::json;

/// The reader; nothing when it refuses the bytes.
std::optional<HeaderReader> open(std::span<const std::byte> bytes) {
  try {
    return HeaderReader(bytes, "input");
  } catch (const ProtocolError&) {
    return std::nullopt;
  }
}

/// Takes one field out of `header` and compares it with `expected`.
void check_field(HeaderReader& header, const std::string& key, const json& expected) {
  if (expected.is_number_unsigned()) {
    std::uint64_t value = 0;
    header.integer(key.c_str(), value);
    FL_CHECK(value == expected.get<std::uint64_t>(), "another unsigned integer");
  } else if (expected.is_number_integer()) {
    std::int64_t value = 0;
    header.integer(key.c_str(), value);
    FL_CHECK(value == expected.get<std::int64_t>(), "another negative integer");
  } else {
    FL_CHECK(expected.is_string(), "a header value that is neither an integer nor text");
    try {
      const std::string text = header.text(key.c_str(), limits::kHeaderBytes);
      FL_CHECK(text == expected.get<std::string>(), "another text");
      FL_CHECK(cleaned_text(text, limits::kHeaderBytes) == text, "text with control characters or bad UTF-8");
    } catch (const ProtocolError&) {
    }
  }
}

void fuzz_one(std::span<const std::byte> bytes) {
  std::optional<HeaderReader> header = open(bytes);
  if (!header.has_value()) return;
  // Only now: nlohmann's reader recurses on hostile bytes, which is why ours exists.
  const json expected = json::from_cbor(bytes, /*strict=*/true, /*allow_exceptions=*/false);
  FL_CHECK(expected.is_object(), "accepted a header that is no CBOR map");
  for (const auto& [key, value] : expected.items()) {
    if (key.find('\0') != std::string::npos) return;  // no caller can ask for such a key
    check_field(*header, key, value);
  }
  header->finish();
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
