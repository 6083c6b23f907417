#include "privacy/noise/random_bits.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <bit>

#include "fl_core/base/error.h"
#include "privacy/noise/wide.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "the words of the key stream are little-endian");

constexpr std::size_t kBlockWords = 2048;
/// From so many words on, they are made in place instead of copied.
constexpr std::size_t kDirectWords = 256;
constexpr std::size_t kBlockBytes = 8 * kBlockWords;
/// Encrypting zeros gives the bare key stream.
constexpr std::array<unsigned char, kBlockBytes> kZeros{};

}  // namespace

struct RandomBits::State {
  EVP_CIPHER_CTX* cipher = EVP_CIPHER_CTX_new();
  std::array<std::uint64_t, kBlockWords> buffer{};

  explicit State(const NoiseKey& key) {
    const std::array<unsigned char, 16> counter{};
    if (cipher == nullptr || EVP_EncryptInit_ex(cipher, EVP_aes_256_ctr(), nullptr,
                                                reinterpret_cast<const unsigned char*>(key.data()), counter.data()) != 1) {
      EVP_CIPHER_CTX_free(cipher);
      throw IoError("random bits: OpenSSL cannot start AES-256-CTR, so no noise can be made; check the installed libcrypto");
    }
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    OPENSSL_cleanse(buffer.data(), kBlockBytes);
    EVP_CIPHER_CTX_free(cipher);  // wipes the key
  }

  /// The next `words` of the stream; at most kBlockWords, an even number (whole blocks of the cipher).
  void encrypt(std::uint64_t* out, std::size_t words) {
    int size = 0;
    const int bytes = static_cast<int>(8 * words);
    if (EVP_EncryptUpdate(cipher, reinterpret_cast<unsigned char*>(out), &size, kZeros.data(), bytes) != 1 || size != bytes) {
      throw IoError("random bits: AES-256-CTR of OpenSSL failed, so no noise can be made; check the installed libcrypto");
    }
  }
};

RandomBits::RandomBits(const NoiseKey& key)
    : state_(std::make_unique<State>(key)), next_(state_->buffer.data() + kBlockWords), end_(next_) {}
RandomBits::~RandomBits() { OPENSSL_cleanse(&coins_, sizeof(coins_)); }
RandomBits::RandomBits(RandomBits&&) noexcept = default;
RandomBits& RandomBits::operator=(RandomBits&&) noexcept = default;

void RandomBits::refill() {
  state_->encrypt(state_->buffer.data(), kBlockWords);
  next_ = state_->buffer.data();
}

std::uint64_t RandomBits::below(std::uint64_t bound) {
  FL_CHECK(bound > 0, "RandomBits::below needs a positive bound");
  // Lemire 2019, "Fast random integer generation in an interval": the low half is compared only where it may decide.
  uint128 product = uint128{next_u64()} * bound;
  if (static_cast<std::uint64_t>(product) < bound) {
    const std::uint64_t threshold = (0 - bound) % bound;
    while (static_cast<std::uint64_t>(product) < threshold) product = uint128{next_u64()} * bound;
  }
  return static_cast<std::uint64_t>(product >> 64);
}

bool RandomBits::coin() {
  if (coins_ == 1) {
    const std::uint64_t word = next_u64();
    coins_ = word >> 1 | std::uint64_t{1} << 63;
    return (word & 1) != 0;
  }
  const bool heads = (coins_ & 1) != 0;
  coins_ >>= 1;
  return heads;
}

void RandomBits::fill(std::span<std::uint64_t> out) {
  while (!out.empty()) {
    if (next_ == end_ && out.size() >= kDirectWords) {  // straight to where it goes
      const std::size_t words = std::min(kBlockWords, out.size() & ~std::size_t{1});
      state_->encrypt(out.data(), words);
      out = out.subspan(words);
      continue;
    }
    if (next_ == end_) refill();
    const std::size_t count = std::min(out.size(), static_cast<std::size_t>(end_ - next_));
    std::copy_n(next_, count, out.begin());
    next_ += count;
    out = out.subspan(count);
  }
}

}  // namespace fl
