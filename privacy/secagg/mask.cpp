#include "privacy/secagg/mask.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "fl_core/base/error.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "the numbers of a mask are little-endian");

constexpr std::size_t kAesBlock = 16;
/// Of the stream, that all masks of a group make before they make the next: a few streams and their values fit in the
/// first caches, and a call of OpenSSL still costs little beside its work.
constexpr std::size_t kBlockBytes = 8192;
/// Masks that go over all values before the next ones: so many ciphers fit in the second caches.
constexpr std::size_t kGroupMasks = 128;

/// Streams that go over the values at once: so reading and writing values costs little beside making streams.
constexpr std::size_t kStreams = 4;
/// A number may be read as a whole word, which ends behind the stream.
constexpr std::size_t kOverread = 8;

/// Encrypting zeros gives the bare key stream.
constexpr std::array<unsigned char, kBlockBytes + kOverread> kZeros{};

struct Buffer {
  alignas(64) std::array<unsigned char, kBlockBytes + kOverread> stream{};

  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { OPENSSL_cleanse(stream.data(), stream.size()); }
};

[[noreturn]] void fail() {
  throw IoError(
      "secure aggregation: AES-256-CTR of OpenSSL failed, so nothing can be masked; check the installed libcrypto");
}

struct FreeCipher {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }  // wipes the key
};

/// The counter block of the stream's block `block`.
struct Counter {
  std::array<unsigned char, kAesBlock> bytes{};

  explicit Counter(std::uint64_t block) {
    for (std::size_t i = kAesBlock; block != 0; block >>= 8) bytes[--i] = static_cast<unsigned char>(block & 0xff);
  }
};

/// One stream after another.
class Stream {
 public:
  Stream() : cipher_(EVP_CIPHER_CTX_new()) {
    if (!cipher_) fail();
  }

  /// The stream under that key, from a block of AES on.
  void start(const SecretKey& key, std::uint64_t block) {
    // Looked up once: a lookup costs more than the setup of a key.
    static const std::unique_ptr<EVP_CIPHER, decltype([](EVP_CIPHER* c) { EVP_CIPHER_free(c); })> algorithm(
        EVP_CIPHER_fetch(nullptr, "AES-256-CTR", nullptr));
    const Counter counter(block);
    if (!algorithm ||
        EVP_EncryptInit_ex2(cipher_.get(), algorithm.get(), reinterpret_cast<const unsigned char*>(key.bytes().data()),
                            counter.bytes.data(), nullptr) != 1) {
      fail();
    }
  }

  /// The next `bytes` bytes. REQUIRES: a multiple of 16 but in the last call.
  const unsigned char* read(Buffer& buffer, std::size_t bytes) {
    int size = 0;
    if (EVP_EncryptUpdate(cipher_.get(), buffer.stream.data(), &size, kZeros.data(), static_cast<int>(bytes)) != 1 ||
        size != static_cast<int>(bytes)) {
      fail();
    }
    return buffer.stream.data();
  }

 private:
  std::unique_ptr<EVP_CIPHER_CTX, FreeCipher> cipher_;
};

/// What a number of that many bytes is read as: a whole word where no type has just its bytes, because what is above
/// them does not matter. Short types are added many at a time.
template <class Word, std::size_t kBytes>
using Number = std::conditional_t<
    kBytes == 1, std::uint8_t,
    std::conditional_t<kBytes == 2, std::uint16_t, std::conditional_t<kBytes == 4, std::uint32_t, Word>>>;

/// Adds or subtracts the sum of the streams, unreduced: what is above the bits of a number is anything.
template <class Word, std::size_t kBytes>
void apply(const unsigned char* const (&streams)[kStreams], Word* __restrict values, std::size_t count, bool subtract) {
  const unsigned char* __restrict const a = streams[0];
  const unsigned char* __restrict const b = streams[1];
  const unsigned char* __restrict const c = streams[2];
  const unsigned char* __restrict const d = streams[3];
  const auto sum = [=](std::size_t i) {
    Number<Word, kBytes> numbers[kStreams];
    std::memcpy(&numbers[0], a + i * kBytes, sizeof numbers[0]);
    std::memcpy(&numbers[1], b + i * kBytes, sizeof numbers[0]);
    std::memcpy(&numbers[2], c + i * kBytes, sizeof numbers[0]);
    std::memcpy(&numbers[3], d + i * kBytes, sizeof numbers[0]);
    return Word{static_cast<Number<Word, kBytes>>(numbers[0] + numbers[1] + numbers[2] + numbers[3])};
  };
  if (subtract) {
    for (std::size_t i = 0; i < count; ++i) values[i] -= sum(i);
  } else {
    for (std::size_t i = 0; i < count; ++i) values[i] += sum(i);
  }
}

template <class Word>
using Apply = void (*)(const unsigned char* const (&streams)[kStreams], Word*, std::size_t, bool);

Apply<std::uint64_t> apply_for(std::span<std::uint64_t>, std::size_t bytes) {
  using Word = std::uint64_t;
  static constexpr Apply<Word> kAll[] = {apply<Word, 1>, apply<Word, 2>, apply<Word, 3>, apply<Word, 4>,
                                         apply<Word, 5>, apply<Word, 6>, apply<Word, 7>, apply<Word, 8>};
  return kAll[bytes - 1];
}
Apply<std::uint32_t> apply_for(std::span<std::uint32_t>, std::size_t bytes) {
  using Word = std::uint32_t;
  static constexpr Apply<Word> kAll[] = {apply<Word, 1>, apply<Word, 2>, apply<Word, 3>, apply<Word, 4>};
  return kAll[bytes - 1];
}

/// Streams of one sign over values that are a block.
template <class Word>
void apply_block(std::span<Stream> streams, bool subtract, std::span<Word> values, std::size_t bytes,
                 Buffer (&buffers)[kStreams]) {
  const Apply<Word> apply_some = apply_for(values, bytes);
  for (std::size_t first = 0; first < streams.size(); first += kStreams) {
    const unsigned char* read[kStreams];
    for (std::size_t i = 0; i < kStreams; ++i) {
      const bool is_there = first + i < streams.size();
      read[i] = is_there ? streams[first + i].read(buffers[i], bytes * values.size()) : kZeros.data();
    }
    apply_some(read, values.data(), values.size(), subtract);
  }
}

template <class Word>
void apply_all(std::span<const SignedMask> given, std::span<Word> values, unsigned bits, std::uint64_t first) {
  FL_CHECK(bits >= 1 && bits <= 8 * sizeof(Word), "a mask has 1 bit to as many as the values");
  FL_CHECK(first % kAesBlock == 0, "a range of a masked vector begins at a multiple of 16");
  const std::size_t bytes = mask_bytes(bits);
  // A multiple of 16 numbers ends with a whole block of AES, whatever their bytes.
  const std::size_t block_values = kBlockBytes / bytes / kAesBlock * kAesBlock;
  std::vector<SignedMask> masks(given.begin(), given.end());
  std::partition(masks.begin(), masks.end(), [](const SignedMask& mask) { return mask.subtract; });
  std::vector<Stream> streams(std::min(masks.size(), kGroupMasks));
  Buffer buffers[kStreams];
  for (std::span<const SignedMask> rest = masks; !rest.empty();) {
    const auto group = rest.first(std::min(rest.size(), kGroupMasks));
    for (std::size_t i = 0; i < group.size(); ++i) streams[i].start(*group[i].key, first / kAesBlock * bytes);
    const auto subtracted = static_cast<std::size_t>(std::ranges::count(group, true, &SignedMask::subtract));
    const auto all = std::span(streams).first(group.size());
    for (std::size_t at = 0; at < values.size(); at += block_values) {
      const auto block = values.subspan(at, std::min(block_values, values.size() - at));
      apply_block(all.first(subtracted), true, block, bytes, buffers);
      apply_block(all.subspan(subtracted), false, block, bytes, buffers);
    }
    rest = rest.subspan(group.size());
  }
  const Word kept = static_cast<Word>(~Word{0}) >> (8 * sizeof(Word) - bits);
  for (Word& value : values) value &= kept;
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
