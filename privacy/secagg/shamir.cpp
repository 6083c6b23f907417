#include "privacy/secagg/shamir.h"

#include <openssl/crypto.h>

#include <algorithm>
#include <string>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr std::uint64_t kPrime = (std::uint64_t{1} << 31) + 11;
constexpr unsigned kLimbBits = 31;
constexpr std::size_t kMaxSecretBytes = 64;
constexpr std::uint32_t kMaxShares = 1'000'000;

// Remainders by a constant compile to multiplications, so no time depends on a value. Arguments are below kPrime <
// 2^32.
std::uint64_t multiply(std::uint64_t a, std::uint64_t b) { return a * b % kPrime; }
std::uint64_t subtract(std::uint64_t a, std::uint64_t b) { return (a + kPrime - b) % kPrime; }
std::uint64_t inverse(std::uint64_t a) {
  std::uint64_t out = 1;
  for (std::uint64_t exponent = kPrime - 2; exponent != 0; exponent >>= 1) {  // Fermat
    if ((exponent & 1) != 0) out = multiply(out, a);
    a = multiply(a, a);
  }
  return out;
}

/// Numbers below kPrime that are wiped.
struct Numbers {
  std::vector<std::uint64_t> values;

  explicit Numbers(std::size_t size) : values(size) {}
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  ~Numbers() { OPENSSL_cleanse(values.data(), values.size() * sizeof(std::uint64_t)); }
  std::uint64_t& operator[](std::size_t i) { return values[i]; }
  std::uint64_t operator[](std::size_t i) const { return values[i]; }
};

std::size_t limb_count(std::size_t secret_bytes) { return shamir_share_bytes(secret_bytes) / 4; }

void limbs_of(std::span<const std::byte> secret, Numbers& limbs) {
  std::uint64_t pending = 0;
  unsigned have = 0;
  std::size_t limb = limbs.values.size();
  for (std::size_t i = secret.size(); i-- > 0;) {
    pending |= std::to_integer<std::uint64_t>(secret[i]) << have;
    have += 8;
    if (have < kLimbBits) continue;
    limbs[--limb] = pending & ((std::uint64_t{1} << kLimbBits) - 1);
    pending >>= kLimbBits;
    have -= kLimbBits;
  }
  if (limb > 0) limbs[--limb] = pending;
  OPENSSL_cleanse(&pending, sizeof(pending));
}

/// False if the limbs are no secret of this size.
bool secret_of(const Numbers& limbs, std::span<std::byte> secret) {
  std::uint64_t pending = 0;
  unsigned have = 0;
  std::uint64_t excess = 0;
  std::size_t limb = limbs.values.size();
  for (std::size_t i = secret.size(); i-- > 0;) {
    if (have < 8) {
      const std::uint64_t next = limbs[--limb];
      excess |= next >> kLimbBits;
      pending |= next << have;
      have += kLimbBits;
    }
    secret[i] = static_cast<std::byte>(pending);
    pending >>= 8;
    have -= 8;
  }
  excess |= pending;
  OPENSSL_cleanse(&pending, sizeof(pending));
  return limb == 0 && excess == 0;
}

std::uint64_t read(std::span<const std::byte> value, std::size_t limb) {
  std::uint64_t out = 0;
  for (std::size_t i = 0; i < 4; ++i) out = out << 8 | std::to_integer<std::uint64_t>(value[4 * limb + i]);
  return out;
}

void write(std::span<std::byte> value, std::size_t limb, std::uint64_t number) {
  for (std::size_t i = 0; i < 4; ++i) value[4 * limb + i] = static_cast<std::byte>(number >> (24 - 8 * i));
}

void check(std::span<const ShamirShare> shares, std::uint32_t threshold, std::size_t secret_bytes) {
  const auto refuse = [](const std::string& what) { throw ProtocolError("Shamir shares: " + what); };
  if (shares.size() < threshold) {
    refuse(std::to_string(shares.size()) + " shares, expected at least the threshold " + std::to_string(threshold));
  }
  std::vector<std::uint32_t> xs;
  xs.reserve(shares.size());
  for (const auto& share : shares) {
    const std::string which = "share " + std::to_string(share.x);
    if (share.x == 0 || share.x > kMaxShares) refuse(which + "; expected a number from 1 to 1000000");
    if (share.value.size() != shamir_share_bytes(secret_bytes)) {
      refuse(which + " has " + std::to_string(share.value.size()) + " bytes, expected " +
             std::to_string(shamir_share_bytes(secret_bytes)));
    }
    for (std::size_t limb = 0; limb < limb_count(secret_bytes); ++limb) {
      if (read(share.value.bytes(), limb) >= kPrime) refuse(which + " holds a number that is not below 2^31 + 11");
    }
    xs.push_back(share.x);
  }
  std::ranges::sort(xs);
  const auto twice = std::ranges::adjacent_find(xs);
  if (twice != xs.end()) refuse("share " + std::to_string(*twice) + " was given twice");
}

/// Lagrange's interpolation through fixed points.
class Interpolation {
 public:
  explicit Interpolation(std::span<const ShamirShare> shares) : shares_(shares), weights_(shares.size()) {
    for (std::size_t i = 0; i < shares.size(); ++i) {
      std::uint64_t product = 1;
      for (std::size_t j = 0; j < shares.size(); ++j) {
        if (j != i) product = multiply(product, subtract(shares[i].x, shares[j].x));
      }
      weights_[i] = inverse(product);
    }
  }

  /// The polynomials' values at `at`, one per limb.
  void evaluate(std::uint64_t at, Numbers& limbs) const {
    const std::size_t count = shares_.size();
    // factors[i]: the product of at - x_j over all j but i, from the products of those before and those after.
    std::vector<std::uint64_t> factors(count);
    std::uint64_t product = 1;
    for (std::size_t i = 0; i < count; ++i) {
      factors[i] = multiply(product, weights_[i]);
      product = multiply(product, subtract(at, shares_[i].x));
    }
    product = 1;
    for (std::size_t i = count; i-- > 0;) {
      factors[i] = multiply(factors[i], product);
      product = multiply(product, subtract(at, shares_[i].x));
    }
    for (std::size_t limb = 0; limb < limbs.values.size(); ++limb) {
      std::uint64_t sum = 0;
      for (std::size_t i = 0; i < count; ++i) sum = (sum + factors[i] * read(shares_[i].value.bytes(), limb)) % kPrime;
      limbs[limb] = sum;
    }
  }

 private:
  std::span<const ShamirShare> shares_;
  std::vector<std::uint64_t> weights_;
};

}  // namespace

std::vector<ShamirShare> shamir_split(std::span<const std::byte> secret, std::uint32_t shares, std::uint32_t threshold,
                                      RandomBits& bits) {
  FL_CHECK(!secret.empty() && secret.size() <= kMaxSecretBytes, "a shared secret has 1 to 64 bytes");
  FL_CHECK(threshold >= 2 && threshold <= shares && shares <= kMaxShares, "2 <= threshold <= shares <= 1,000,000");
  std::vector<ShamirShare> out(shares);
  for (std::uint32_t i = 0; i < shares; ++i) out[i] = {i + 1, SecretBytes(shamir_share_bytes(secret.size()))};
  Numbers limbs(limb_count(secret.size()));
  limbs_of(secret, limbs);
  Numbers coefficients(threshold);
  for (std::size_t limb = 0; limb < limbs.values.size(); ++limb) {
    coefficients[0] = limbs[limb];
    for (std::size_t i = 1; i < threshold; ++i) coefficients[i] = bits.below(kPrime);
    for (auto& share : out) {
      std::uint64_t value = 0;
      for (std::size_t i = threshold; i-- > 0;) value = (value * share.x + coefficients[i]) % kPrime;  // Horner
      write(share.value.bytes(), limb, value);
    }
  }
  return out;
}

SecretBytes shamir_combine(std::span<const ShamirShare> shares, std::uint32_t threshold, std::size_t secret_bytes) {
  FL_CHECK(secret_bytes >= 1 && secret_bytes <= kMaxSecretBytes && threshold >= 2,
           "1 to 64 secret bytes, threshold >= 2");
  check(shares, threshold, secret_bytes);
  const Interpolation polynomials(shares.first(threshold));
  Numbers limbs(limb_count(secret_bytes));
  for (const auto& further : shares.subspan(threshold)) {
    polynomials.evaluate(further.x, limbs);
    for (std::size_t limb = 0; limb < limbs.values.size(); ++limb) {
      if (limbs[limb] == read(further.value.bytes(), limb)) continue;
      throw ProtocolError("Shamir shares: share " + std::to_string(further.x) + " contradicts the first " +
                          std::to_string(threshold) + " of " + std::to_string(shares.size()) +
                          "; at least one of them is wrong");
    }
  }
  polynomials.evaluate(0, limbs);
  SecretBytes secret(secret_bytes);
  if (!secret_of(limbs, secret.bytes())) {
    throw ProtocolError("Shamir shares: the " + std::to_string(threshold) + " shares rebuild no secret of " +
                        std::to_string(secret_bytes) + " bytes; at least one of them is wrong");
  }
  return secret;
}

}  // namespace fl
