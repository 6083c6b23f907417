#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace fl {

/// Which federation run a message belongs to: 32 bytes that every participant knows and no two runs share.
using SessionId = std::array<std::byte, 32>;
/// An X25519 or Ed25519 public key as it travels (RFC 7748, RFC 8032).
using PublicKey = std::array<std::byte, 32>;

/// 32 secret bytes: a private key, a mask's key, a seed. Moves only; wiped (OPENSSL_cleanse) when it dies, when it is
/// moved from (then it holds zeros) and when something is assigned to it.
class SecretKey {
 public:
  static constexpr std::size_t kSize = 32;

  /// Zeros: for what is filled later.
  SecretKey() = default;
  /// A copy; the caller wipes what it copied from.
  explicit SecretKey(std::span<const std::byte, kSize> bytes);
  ~SecretKey();
  SecretKey(SecretKey&& other) noexcept;
  SecretKey& operator=(SecretKey&& other) noexcept;
  SecretKey(const SecretKey&) = delete;
  SecretKey& operator=(const SecretKey&) = delete;

  /// From OpenSSL's generator (RAND_priv_bytes). IoError when it fails.
  static SecretKey random();
  /// A copy on purpose: there are as many secrets to keep as copies.
  SecretKey copy() const { return SecretKey(bytes()); }

  std::span<const std::byte, kSize> bytes() const { return bytes_; }
  std::span<std::byte, kSize> bytes() { return bytes_; }

 private:
  std::array<std::byte, kSize> bytes_{};
};

/// Secret bytes of any number: a share, a sealed message's contents. Moves only; wiped when it dies or is assigned to.
class SecretBytes {
 public:
  SecretBytes() = default;
  /// `size` zeros.
  explicit SecretBytes(std::size_t size) : bytes_(size) {}
  /// A copy; the caller wipes what it copied from.
  explicit SecretBytes(std::span<const std::byte> bytes) : bytes_(bytes.begin(), bytes.end()) {}
  ~SecretBytes();
  SecretBytes(SecretBytes&& other) noexcept = default;
  SecretBytes& operator=(SecretBytes&& other) noexcept;
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  /// A copy on purpose.
  SecretBytes copy() const { return SecretBytes(bytes()); }

  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> bytes() const { return bytes_; }
  std::span<std::byte> bytes() { return bytes_; }

 private:
  std::vector<std::byte> bytes_;  ///< never grows, so no unwiped copy stays behind
};

/// Whether both hold the same bytes, in a time that depends on the sizes only.
bool equal_in_constant_time(std::span<const std::byte> a, std::span<const std::byte> b);

}  // namespace fl
