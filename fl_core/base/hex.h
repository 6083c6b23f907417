#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace fl {

/// Lower-case hexadecimal digits, two a byte.
std::string to_hex(std::span<const std::byte> bytes);
/// What to_hex() wrote; nothing for anything else (an odd number of digits, upper case, another character).
std::optional<std::vector<std::byte>> from_hex(const std::string& text);
/// Whether `text` is `digits` lower-case hexadecimal digits.
bool is_hex(const std::string& text, std::size_t digits);

}  // namespace fl
