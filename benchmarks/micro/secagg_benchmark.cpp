#include <benchmark/benchmark.h>
#include <openssl/evp.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "benchmarks/micro/best_rate.h"
#include "fl_core/base/error.h"
#include "privacy/noise/random_bits.h"
#include "privacy/secagg/graph_parameters.h"
#include "privacy/secagg/harary_graph.h"
#include "privacy/secagg/key_agreement.h"
#include "privacy/secagg/mask.h"
#include "privacy/secagg/sealed_share.h"
#include "privacy/secagg/shamir.h"
#include "privacy/secagg/signature.h"

namespace fl {
namespace {

SecretKey key_of(std::uint64_t number) {
  SecretKey key;
  for (std::size_t i = 0; i < 8; ++i) key.bytes()[i] = static_cast<std::byte>(number >> 8 * i);
  return key;
}

/// What masks are made of and cannot beat: the bare stream of OpenSSL, written to a buffer that stays in the cache.
class RawStream {
 public:
  RawStream() : cipher_(EVP_CIPHER_CTX_new(), &EVP_CIPHER_CTX_free) {
    const std::array<unsigned char, 32> zeros{};
    FL_CHECK(EVP_EncryptInit_ex(cipher_.get(), EVP_aes_256_ctr(), nullptr, zeros.data(), zeros.data()) == 1,
             "AES-256-CTR does not start");
  }
  void run() {
    int size = 0;
    EVP_EncryptUpdate(cipher_.get(), out_.data(), &size, in_.data(), static_cast<int>(in_.size()));
    benchmark::ClobberMemory();
  }
  static constexpr std::int64_t kBytes = 16'384;

 private:
  std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> cipher_;
  std::array<unsigned char, kBytes> in_{};
  std::array<unsigned char, kBytes> out_{};
};

void SecaggRawAesCtr(benchmark::State& state) {
  RawStream raw;
  for (auto _ : state) raw.run();
  state.SetBytesProcessed(RawStream::kBytes * state.iterations());
}

/// A client's cost of masking: parameters, neighbours, bits. Items are masked numbers, bytes those of the stream.
/// `of_raw` is the best rate over that of the bare stream for as many bytes, both measured here, one right after the
/// other.
template <class Word>
void mask_all(benchmark::State& state) {
  std::vector<Word> values(static_cast<std::size_t>(state.range(0)));
  std::vector<SecretKey> keys;
  for (std::int64_t i = 0; i < state.range(1); ++i) keys.push_back(key_of(static_cast<std::uint64_t>(i)));
  std::vector<SignedMask> masks;
  for (const auto& key : keys) masks.push_back({&key, masks.size() % 2 == 0});
  const auto bits = static_cast<unsigned>(state.range(2));
  const std::int64_t numbers = state.range(0) * state.range(1);
  const std::int64_t bytes = numbers * mask_bytes(bits);
  const auto run = [&] {
    apply_masks(masks, std::span(values), bits);
    benchmark::ClobberMemory();
  };
  RawStream raw;
  const double raw_rate = best_rate(static_cast<double>(bytes), [&] {
    for (std::int64_t done = 0; done < bytes; done += RawStream::kBytes) raw.run();
  });
  const double rate = best_rate(static_cast<double>(bytes), run);
  for (auto _ : state) run();
  state.SetItemsProcessed(numbers * state.iterations());
  state.SetBytesProcessed(bytes * state.iterations());
  state.counters["of_raw"] = rate / raw_rate;
}
void SecaggMask32(benchmark::State& state) { mask_all<std::uint32_t>(state); }
void SecaggMask64(benchmark::State& state) { mask_all<std::uint64_t>(state); }

/// Shares, threshold.
void SecaggShamirSplit(benchmark::State& state) {
  RandomBits bits(NoiseKey{});
  const SecretKey secret = key_of(7);
  for (auto _ : state) {
    benchmark::DoNotOptimize(shamir_split(secret.bytes(), static_cast<std::uint32_t>(state.range(0)),
                                          static_cast<std::uint32_t>(state.range(1)), bits));
  }
}
/// Shares given (those above the threshold are checked), threshold.
void SecaggShamirCombine(benchmark::State& state) {
  RandomBits bits(NoiseKey{});
  const auto threshold = static_cast<std::uint32_t>(state.range(1));
  const auto shares = shamir_split(key_of(7).bytes(), static_cast<std::uint32_t>(state.range(0)), threshold, bits);
  for (auto _ : state) benchmark::DoNotOptimize(shamir_combine(shares, threshold, SecretKey::kSize));
}

void SecaggKeyAgreement(benchmark::State& state) {
  const AgreementKeys own(key_of(8));  // X25519 ignores the lowest three bits
  const AgreementKeys peer(key_of(16));
  AgreementContext context;
  context.peer = 1;
  for (auto _ : state) benchmark::DoNotOptimize(own.agree(peer.public_key(), context));
}

/// Sealing and opening the two shares of a peer.
void SecaggSealAndOpen(benchmark::State& state) {
  RandomBits bits(NoiseKey{});
  const SecretKey key = key_of(1);
  const SecretBytes plain(2 * shamir_share_bytes(SecretKey::kSize));
  for (auto _ : state) benchmark::DoNotOptimize(open_sealed(key, {}, seal(key, {}, plain.bytes(), bits)));
}

void SecaggSign(benchmark::State& state) {
  const SigningKey key(key_of(1));
  const std::array<std::byte, 200> message{};
  for (auto _ : state) benchmark::DoNotOptimize(key.sign("benchmark", message));
}
void SecaggVerify(benchmark::State& state) {
  const SigningKey key(key_of(1));
  const std::array<std::byte, 200> message{};
  const Signature signature = key.sign("benchmark", message);
  for (auto _ : state) benchmark::DoNotOptimize(verify_signature(key.public_key(), "benchmark", message, signature));
}

/// Clients, at 30 % adversaries and drop-outs: the longest of the searches.
void SecaggGraphParameters(benchmark::State& state) {
  const GraphRequirements requirements{static_cast<std::uint32_t>(state.range(0)), 0.3, 0.3,
                                       ServerModel::semi_malicious};
  for (auto _ : state) benchmark::DoNotOptimize(find_graph_parameters(requirements));
}
void SecaggHararyGraph(benchmark::State& state) {
  for (auto _ : state)
    benchmark::DoNotOptimize(HararyGraph(static_cast<std::uint32_t>(state.range(0)), 100, GraphSeed{}));
}

BENCHMARK(SecaggRawAesCtr);
BENCHMARK(SecaggMask32)->Args({1'000, 100, 32})->Args({1'000'000, 100, 32})->Args({10'000'000, 10, 32});
BENCHMARK(SecaggMask64)
    ->Args({1'000, 100, 64})
    ->Args({100'000, 100, 64})
    ->Args({1'000'000, 1, 64})
    ->Args({1'000'000, 100, 16})
    ->Args({1'000'000, 100, 32})
    ->Args({1'000'000, 100, 40})
    ->Args({1'000'000, 100, 56})
    ->Args({1'000'000, 100, 64});
BENCHMARK(SecaggShamirSplit)->Args({100, 51});
BENCHMARK(SecaggShamirCombine)->Args({51, 51})->Args({100, 51});
BENCHMARK(SecaggKeyAgreement);
BENCHMARK(SecaggSealAndOpen);
BENCHMARK(SecaggSign);
BENCHMARK(SecaggVerify);
BENCHMARK(SecaggGraphParameters)->Arg(1'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);
BENCHMARK(SecaggHararyGraph)->Arg(1'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace fl
