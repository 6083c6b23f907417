#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "fl_core/base/hex.h"
#include "privacy/secagg/secret.h"

namespace fl::test {

/// A secret that is told apart by a number. X25519 ignores some bits of a private key, so the number comes twice.
inline SecretKey secret_of(std::uint64_t number) {
  SecretKey key;
  for (std::size_t i = 0; i < 8; ++i) key.bytes()[i] = key.bytes()[i + 8] = static_cast<std::byte>(number >> 8 * i);
  return key;
}

/// Hexadecimal digits, or "bytes 00..4f": all from the first to the last.
inline std::vector<std::byte> bytes_of(const std::string& text) {
  if (text.starts_with("bytes ")) {
    std::vector<std::byte> out;
    for (int i = std::stoi(text.substr(6, 2), nullptr, 16); i <= std::stoi(text.substr(10, 2), nullptr, 16); ++i) {
      out.push_back(static_cast<std::byte>(i));
    }
    return out;
  }
  auto out = from_hex(text);
  if (!out) throw std::runtime_error("no hexadecimal digits: " + text);
  return *out;
}

template <std::size_t size>
std::array<std::byte, size> array_of(const std::string& text) {
  const auto bytes = bytes_of(text);
  if (bytes.size() != size) throw std::runtime_error("another number of bytes: " + text);
  std::array<std::byte, size> out;
  std::ranges::copy(bytes, out.begin());
  return out;
}

inline SecretKey secret_of_hex(const std::string& text) { return SecretKey(array_of<32>(text)); }

/// tests/data/`name`.
inline nlohmann::json test_data(const std::string& name) {
  std::ifstream file(std::string(FL_TEST_DATA) + "/" + name);
  return nlohmann::json::parse(file);
}

/// The vectors of tests/data/crypto_vectors.json for one primitive; never empty.
inline std::vector<nlohmann::json> crypto_vectors(const std::string& primitive) {
  std::vector<nlohmann::json> out;
  const nlohmann::json data = test_data("crypto_vectors.json");
  for (const auto& vector : data.at("vectors")) {
    if (vector.at("primitive") == primitive) out.push_back(vector);
  }
  if (out.empty()) throw std::runtime_error("no vectors of " + primitive);
  return out;
}

}  // namespace fl::test
