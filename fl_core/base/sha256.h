#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace fl {

/// SHA-256 of bytes fed in pieces (OpenSSL). Used for blob names, layout fingerprints and model identity.
class Sha256 {
 public:
  using Digest = std::array<std::byte, 32>;

  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;

  Sha256& add(std::span<const std::byte> bytes);
  Sha256& add(const std::string& text);
  /// Ends the hash; the object may not be used after.
  Digest finish();
  std::string finish_hex();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// 64 lower-case hexadecimal digits.
std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace fl
