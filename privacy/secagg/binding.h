#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace fl {

/// What a key, a sealed message or a hash is bound to: a label, a zero byte, then fields of fixed size, integers
/// little-endian. Different fields under one label, or different labels, never give equal bytes.
class Binding {
 public:
  /// REQUIRES: no zero byte in the label.
  explicit Binding(std::string_view label) {
    for (const char c : label) bytes_.push_back(static_cast<std::byte>(c));
    bytes_.push_back(std::byte{0});
  }
  Binding& add(std::unsigned_integral auto value) {
    for (std::size_t i = 0; i < sizeof(value); ++i) {
      bytes_.push_back(static_cast<std::byte>(static_cast<std::uint64_t>(value) >> 8 * i));
    }
    return *this;
  }
  Binding& add(std::span<const std::byte> bytes) {
    bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace fl
