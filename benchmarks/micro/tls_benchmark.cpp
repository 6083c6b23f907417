#include <benchmark/benchmark.h>
#include <openssl/evp.h>

#include <array>
#include <vector>

#include "benchmarks/micro/best_rate.h"
#include "benchmarks/tls_ends.h"
#include "fl_core/base/sha256.h"

namespace fl {
namespace {

constexpr std::size_t kRecordBytes = 16 * 1024;
/// FramedStream's batch, the bytes of a system call.
constexpr std::size_t kRecords = 16;

/// What a record cannot beat: OpenSSL's bare cipher, a header of 5 bytes authenticated with 16 KB and the inner type.
class RawCipher {
 public:
  explicit RawCipher(const EVP_CIPHER* cipher) {
    start(EVP_EncryptInit_ex(sealing_, cipher, nullptr, key_.data(), nonce_.data()));
    start(EVP_DecryptInit_ex(opening_, cipher, nullptr, key_.data(), nonce_.data()));
  }
  ~RawCipher() {
    EVP_CIPHER_CTX_free(sealing_);
    EVP_CIPHER_CTX_free(opening_);
  }
  RawCipher(const RawCipher&) = delete;
  RawCipher& operator=(const RawCipher&) = delete;

  void seal_and_open() {
    int size = 0;
    EVP_EncryptInit_ex(sealing_, nullptr, nullptr, nullptr, nonce_.data());
    EVP_EncryptUpdate(sealing_, nullptr, &size, header_.data(), static_cast<int>(header_.size()));
    EVP_EncryptUpdate(sealing_, sealed_.data(), &size, plain_.data(), static_cast<int>(plain_.size()));
    EVP_EncryptFinal_ex(sealing_, nullptr, &size);
    EVP_CIPHER_CTX_ctrl(sealing_, EVP_CTRL_AEAD_GET_TAG, static_cast<int>(tag_.size()), tag_.data());
    EVP_DecryptInit_ex(opening_, nullptr, nullptr, nullptr, nonce_.data());
    EVP_CIPHER_CTX_ctrl(opening_, EVP_CTRL_AEAD_SET_TAG, static_cast<int>(tag_.size()), tag_.data());
    EVP_DecryptUpdate(opening_, nullptr, &size, header_.data(), static_cast<int>(header_.size()));
    EVP_DecryptUpdate(opening_, plain_.data(), &size, sealed_.data(), static_cast<int>(sealed_.size()));
    FL_CHECK(EVP_DecryptFinal_ex(opening_, nullptr, &size) == 1, "the raw cipher does not open what it sealed");
    ++nonce_[0];
  }

 private:
  static void start(int result) { FL_CHECK(result == 1, "OpenSSL's cipher does not start"); }

  EVP_CIPHER_CTX* sealing_ = EVP_CIPHER_CTX_new();
  EVP_CIPHER_CTX* opening_ = EVP_CIPHER_CTX_new();
  std::array<unsigned char, 32> key_{};
  std::array<unsigned char, 12> nonce_{};
  std::array<unsigned char, 5> header_{};
  std::array<unsigned char, 16> tag_{};
  std::array<unsigned char, kRecordBytes + 1> plain_{};
  std::array<unsigned char, kRecordBytes + 1> sealed_{};
};

/// A batch of records from one end of a TLS connection to the other, through memory instead of a socket.
class Records {
 public:
  void move() {
    for (std::size_t at = 0; at < plain_.size(); at += kRecordBytes) {
      FL_CHECK(SSL_write(pair_.client, plain_.data() + at, kRecordBytes) == static_cast<int>(kRecordBytes), "SSL_write failed");
    }
    for (std::size_t done = 0; done < got_.size();) {
      std::size_t size = 0;
      FL_CHECK(SSL_read_ex(pair_.server, got_.data() + done, got_.size() - done, &size) == 1, "SSL_read_ex failed");
      done += size;
    }
  }
  const EVP_CIPHER* cipher() const { return EVP_get_cipherbynid(SSL_CIPHER_get_cipher_nid(SSL_get_current_cipher(pair_.client))); }
  std::string cipher_name() const { return SSL_CIPHER_get_name(SSL_get_current_cipher(pair_.client)); }

 private:
  TlsEnds ends_;
  TlsMemoryPair pair_{ends_};
  std::vector<std::byte> plain_ = std::vector<std::byte>(kRecords * kRecordBytes);
  std::vector<std::byte> got_ = std::vector<std::byte>(plain_.size());
};

/// Encrypting and decrypting, each byte once. `of_raw` is the best rate over that of the bare cipher, both measured here, one right after the other.
void TlsRecords(benchmark::State& state) {
  Records records;
  RawCipher raw(records.cipher());
  constexpr double kBytes = kRecords * kRecordBytes;
  const double raw_rate = best_rate(kBytes, [&] {
    for (std::size_t i = 0; i < kRecords; ++i) raw.seal_and_open();
  });
  const double rate = best_rate(kBytes, [&] { records.move(); });
  for (auto _ : state) records.move();
  state.SetBytesProcessed(static_cast<std::int64_t>(kBytes) * state.iterations());
  state.SetLabel(records.cipher_name());
  state.counters["of_raw"] = rate / raw_rate;
}

/// What names a blob. `of_raw`: beside OpenSSL's one call over all bytes.
void BlobSha256(benchmark::State& state) {
  const std::vector<std::byte> blob(4 * static_cast<std::size_t>(state.range(0)));
  const auto bytes = static_cast<double>(blob.size());
  const double raw_rate = best_rate(bytes, [&] {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
    unsigned int size = 0;
    FL_CHECK(EVP_Digest(blob.data(), blob.size(), digest.data(), &size, EVP_sha256(), nullptr) == 1, "EVP_Digest failed");
    benchmark::DoNotOptimize(digest);
  });
  const double rate = best_rate(bytes, [&] { benchmark::DoNotOptimize(sha256_hex(blob)); });
  for (auto _ : state) benchmark::DoNotOptimize(sha256_hex(blob));
  state.SetBytesProcessed(4 * state.range(0) * state.iterations());
  state.counters["of_raw"] = rate / raw_rate;
}

BENCHMARK(TlsRecords);
BENCHMARK(BlobSha256)->Arg(1'000)->Arg(100'000)->Arg(10'000'000);

}  // namespace
}  // namespace fl
