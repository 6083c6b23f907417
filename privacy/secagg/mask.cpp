#include "privacy/secagg/mask.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

#include "fl_core/base/error.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "the numbers of a mask are little-endian");

/// Values that all masks go over before the next ones: with the stream they fit in the first caches.
constexpr std::size_t kBlockValues = 2048;
constexpr std::size_t kAesBlock = 16;
/// A multiple of kBlockValues starts at a whole block of AES, whatever the bytes of a number.
static_assert(kBlockValues % kAesBlock == 0);

struct Block {
  /// Encrypting zeros gives the bare key stream.
  static constexpr std::array<unsigned char, 8 * kBlockValues> kZeros{};
  alignas(64) std::array<unsigned char, 8 * kBlockValues> stream{};

  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() { OPENSSL_cleanse(stream.data(), stream.size()); }
};

[[noreturn]] void fail() {
  throw IoError(
      "secure aggregation: AES-256-CTR of OpenSSL failed, so nothing can be masked; check the installed libcrypto");
}

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }  // wipes the key
};

/// The stream under one key, from a block of AES on.
class Stream {
 public:
  Stream(const SecretKey& key, std::uint64_t first_block) : cipher_(EVP_CIPHER_CTX_new()) {
    // Looked up once: a lookup costs more than the setup of a key.
    static const std::unique_ptr<EVP_CIPHER, decltype([](EVP_CIPHER* c) { EVP_CIPHER_free(c); })> algorithm(
        EVP_CIPHER_fetch(nullptr, "AES-256-CTR", nullptr));
    std::array<unsigned char, kAesBlock> counter{};
    for (std::size_t i = 0; i < 8; ++i) counter[15 - i] = static_cast<unsigned char>(first_block >> 8 * i);
    if (!algorithm || !cipher_ ||
        EVP_EncryptInit_ex2(cipher_.get(), algorithm.get(), reinterpret_cast<const unsigned char*>(key.bytes().data()),
                            counter.data(), nullptr) != 1) {
      fail();
    }
  }

  /// The next `bytes` bytes. REQUIRES: a multiple of 16 but in the last call.
  void read(Block& block, std::size_t bytes) {
    int size = 0;
    if (EVP_EncryptUpdate(cipher_.get(), block.stream.data(), &size, Block::kZeros.data(), static_cast<int>(bytes)) !=
            1 ||
        size != static_cast<int>(bytes)) {
      fail();
    }
  }

 private:
  std::unique_ptr<EVP_CIPHER_CTX, FreeCipher> cipher_;
};

/// Adds or subtracts, unreduced: the modulus divides that of the arithmetic.
template <class Number, class Word>
void apply(const unsigned char* __restrict stream, Word* __restrict values, std::size_t count, bool subtract) {
  const auto number = [stream](std::size_t i) {
    Number out;
    std::memcpy(&out, stream + i * sizeof(Number), sizeof(Number));
    return Word{out};
  };
  if (subtract) {
    for (std::size_t i = 0; i < count; ++i) values[i] -= number(i);
  } else {
    for (std::size_t i = 0; i < count; ++i) values[i] += number(i);
  }
}

template <class Word>
using Apply = void (*)(const unsigned char*, Word*, std::size_t, bool);

template <class Word>
Apply<Word> apply_for(std::size_t number_bytes) {
  if (number_bytes == 1) return apply<std::uint8_t, Word>;
  if (number_bytes == 2) return apply<std::uint16_t, Word>;
  if (number_bytes == 4) return apply<std::uint32_t, Word>;
  return apply<Word, Word>;
}

template <class Word>
void apply_all(std::span<const SignedMask> masks, std::span<Word> values, unsigned bits, std::uint64_t first) {
  FL_CHECK(bits >= 1 && bits <= 8 * sizeof(Word), "a mask has 1 bit to as many as the values");
  FL_CHECK(first % kAesBlock == 0, "a range of a masked vector begins at a multiple of 16");
  const std::size_t number_bytes = std::bit_ceil((bits + 7) / 8);
  const Apply<Word> apply_block = apply_for<Word>(number_bytes);
  const Word kept = static_cast<Word>(~Word{0}) >> (8 * sizeof(Word) - bits);
  std::vector<Stream> streams;
  streams.reserve(masks.size());
  for (const auto& mask : masks) streams.emplace_back(*mask.key, first / kAesBlock * number_bytes);
  Block block;
  while (!values.empty()) {
    const auto some = values.first(std::min(values.size(), kBlockValues));
    for (std::size_t i = 0; i < masks.size(); ++i) {
      streams[i].read(block, number_bytes * some.size());
      apply_block(block.stream.data(), some.data(), some.size(), masks[i].subtract);
    }
    for (Word& value : some) value &= kept;
    values = values.subspan(some.size());
  }
}

}  // namespace

void apply_masks(std::span<const SignedMask> masks, std::span<std::uint64_t> values, unsigned bits,
                 std::uint64_t first) {
  apply_all(masks, values, bits, first);
}
void apply_masks(std::span<const SignedMask> masks, std::span<std::uint32_t> values, unsigned bits,
                 std::uint64_t first) {
  apply_all(masks, values, bits, first);
}

void add_mask(const SecretKey& key, std::span<std::uint64_t> values, unsigned bits) {
  apply_masks(std::array{SignedMask{&key, false}}, values, bits);
}
void add_mask(const SecretKey& key, std::span<std::uint32_t> values, unsigned bits) {
  apply_masks(std::array{SignedMask{&key, false}}, values, bits);
}
void subtract_mask(const SecretKey& key, std::span<std::uint64_t> values, unsigned bits) {
  apply_masks(std::array{SignedMask{&key, true}}, values, bits);
}
void subtract_mask(const SecretKey& key, std::span<std::uint32_t> values, unsigned bits) {
  apply_masks(std::array{SignedMask{&key, true}}, values, bits);
}

}  // namespace fl
