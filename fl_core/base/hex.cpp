#include "fl_core/base/hex.h"

#include <string_view>

namespace fl {
namespace {

constexpr std::string_view kDigits = "0123456789abcdef";

}  // namespace

std::string to_hex(std::span<const std::byte> bytes) {
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    text += kDigits[std::to_integer<unsigned>(byte) >> 4U];
    text += kDigits[std::to_integer<unsigned>(byte) & 15U];
  }
  return text;
}

std::optional<std::vector<std::byte>> from_hex(const std::string& text) {
  if (text.size() % 2 != 0 || !is_hex(text, text.size())) return std::nullopt;
  std::vector<std::byte> bytes(text.size() / 2);
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<std::byte>(kDigits.find(text[2 * i]) << 4U | kDigits.find(text[2 * i + 1]));
  }
  return bytes;
}

bool is_hex(const std::string& text, std::size_t digits) { return text.size() == digits && text.find_first_not_of(kDigits) == std::string::npos; }

}  // namespace fl
