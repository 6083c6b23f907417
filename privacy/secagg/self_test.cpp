#include <algorithm>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"
#include "privacy/noise/random_bits.h"
#include "privacy/secagg/mask.h"
#include "privacy/secagg/primitives.h"

namespace fl::primitives {
namespace {

std::vector<std::byte> bytes(const std::string& hex) {
  auto out = from_hex(hex);
  FL_CHECK(out.has_value(), "a known answer is no hexadecimal text");
  return std::move(*out);
}

template <std::size_t size>
std::array<std::byte, size> array(const std::string& hex) {
  std::array<std::byte, size> out;
  const auto from = bytes(hex);
  FL_CHECK(from.size() == size, "a known answer has another size");
  std::ranges::copy(from, out.begin());
  return out;
}

SecretKey secret(const std::string& hex) { return SecretKey(array<32>(hex)); }

void expect(const char* primitive, std::span<const std::byte> computed, const std::string& known) {
  if (to_hex(computed) == known) return;
  throw IoError(std::string("secure aggregation: the installed libcrypto computes ") + primitive +
                " wrongly (its known answer is " + known + "), so nothing can be kept secret with it; install another");
}

}  // namespace

void self_test() {
  // RFC 7748 section 6.1.
  const auto shared = X25519Key(secret("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"))
                          .agree(array<32>("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"));
  expect("X25519", shared ? std::span<const std::byte>(shared->bytes()) : std::span<const std::byte>(),
         "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
  // RFC 5869 A.1.
  std::array<std::byte, 42> okm;
  hkdf_sha256(bytes("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b"), bytes("000102030405060708090a0b0c"),
              bytes("f0f1f2f3f4f5f6f7f8f9"), okm);
  expect("HKDF-SHA256", okm, "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
  // RFC 8032 section 7.1, test 2.
  const auto signature =
      ed25519_sign(secret("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"), bytes("72"));
  expect("Ed25519", signature,
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
         "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
  // GCM specification, test case 14.
  const auto sealed = aes_gcm_seal(SecretKey(), Nonce{}, {}, SecretKey().bytes().first<16>());
  expect("AES-256-GCM", sealed, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
  // NIST AESAVS appendix C.3 (KeySbox): the first block of the stream is the encryption of zeros.
  constexpr const char* kKey = "c47b0294dbbbee0fec4757f22ffeee3587ca4730c3d33b691df38bab076bc558";
  constexpr const char* kFirst = "46f2fb342d6f0ab477476fc501242c5f";
  std::array<std::uint64_t, 2> stream;
  RandomBits(array<32>(kKey)).fill(stream);
  expect("AES-256-CTR", std::as_bytes(std::span(stream)), kFirst);
  std::array<std::uint64_t, 2> mask{};
  add_mask(secret(kKey), std::span(mask), 64);
  expect("AES-256-CTR", std::as_bytes(std::span(mask)), kFirst);
}

}  // namespace fl::primitives
