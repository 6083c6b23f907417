#include <benchmark/benchmark.h>

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "fl_core/base/rng.h"
#include "privacy/secagg/client.h"
#include "privacy/secagg/server.h"

namespace fl {
namespace {

constexpr std::uint64_t kSeed = 20240601;

NoiseKey fixed_key(std::uint64_t kind, std::uint64_t index) {
  Rng rng(kSeed, Purpose::synthetic_data, kind, index);
  NoiseKey key;
  for (std::byte& byte : key) byte = static_cast<std::byte>(rng.next_u32());
  return key;
}

/// A cohort of which a part drops out after it shared: the costliest moment, because masks with every survivor have to
/// come off.
class Cohort final : public PeerDirectory {
 public:
  Cohort(std::size_t clients, const SecAggPlan& plan) : plan_(plan) {
    round_.round = 1;
    for (std::size_t i = 0; i < clients; ++i) {
      identities_.emplace_back(SecretKey(fixed_key(1, i)));
      clients_.emplace_back(i, round_, plan, SecAggPolicy{0, 40, 3, true}, identities_[i], *this, fixed_key(2, i));
    }
  }

  std::optional<PublicKey> identity_key(ClientId client) const override {
    if (client >= identities_.size()) return std::nullopt;
    return identities_[client].public_key();
  }

  /// A server that has collected everything, so that only finish() is left.
  SecAggServer until_finish(std::size_t dropouts) {
    SecAggServer server(round_, plan_, *this);
    for (std::size_t i = 0; i < clients_.size(); ++i) server.add_advert(i, clients_[i].advertise());
    for (const SecAggMail& mail : server.close_adverts())
      server.add_shares(mail.client, clients_[mail.client].share(mail.bytes));
    const std::vector<std::uint64_t> input(plan_.length, 1);
    for (const SecAggMail& mail : server.close_shares()) {
      if (mail.client >= dropouts) server.add_input(mail.client, clients_[mail.client].mask(mail.bytes, input));
    }
    for (const SecAggMail& mail : server.close_inputs())
      server.add_confirmation(mail.client, clients_[mail.client].confirm(mail.bytes));
    for (const SecAggMail& mail : server.close_confirmations())
      server.add_reveal(mail.client, clients_[mail.client].unmask(mail.bytes));
    return server;
  }

  /// What client 0 is asked in step 3.
  SecAggBytes inbox_of_first() {
    SecAggServer server(round_, plan_, *this);
    for (std::size_t i = 0; i < clients_.size(); ++i) server.add_advert(i, clients_[i].advertise());
    roster_ = server.close_adverts();
    for (const SecAggMail& mail : roster_) server.add_shares(mail.client, clients_[mail.client].share(mail.bytes));
    return server.close_shares()[0].bytes;
  }
  /// Client 0 again, up to step 3: the same seeds give the same keys.
  SecAggClient first_before_input() const {
    SecAggClient client(0, round_, plan_, SecAggPolicy{0, 40, 3, true}, identities_[0], *this, fixed_key(2, 0));
    client.advertise();
    client.share(roster_[0].bytes);
    return client;
  }

 private:
  SecAggPlan plan_;
  SecAggRound round_;
  std::deque<SigningKey> identities_;
  std::vector<SecAggClient> clients_;
  std::vector<SecAggMail> roster_;
};

SecAggPlan plan_of(ServerModel server, std::int64_t length, std::int64_t bits) {
  SecAggPlan plan;
  plan.adversary_rate = 0.05;
  plan.dropout_rate = 0.3;
  plan.server = server;
  plan.bits = static_cast<unsigned>(bits);
  plan.length = static_cast<std::uint64_t>(length);
  return plan;
}

/// SecAggServer::finish() on one core: range(0) clients, 30 % gone after they shared, range(1) parameters of range(2)
/// bits. `masks` is how many had to be made again, each after a key agreement.
void unmask(benchmark::State& state, ServerModel model) {
  const auto clients = static_cast<std::size_t>(state.range(0));
  // Collecting everything takes longer than what is measured.
  static std::deque<Cohort> cohorts;
  static std::map<std::string, SecAggServer> servers;
  const std::string name = std::to_string(static_cast<int>(model)) + "/" + std::to_string(clients) + "/" +
                           std::to_string(state.range(1)) + "/" + std::to_string(state.range(2));
  if (!servers.contains(name)) {
    cohorts.emplace_back(clients, plan_of(model, state.range(1), state.range(2)));
    servers.emplace(name, cohorts.back().until_finish(clients * 3 / 10));
  }
  for (auto _ : state) {
    state.PauseTiming();
    SecAggServer server = servers.at(name);
    state.ResumeTiming();
    const auto sum = server.finish();
    if (!sum || sum->values[0] != clients - clients * 3 / 10) state.SkipWithError(server.abort_reason().c_str());
  }
  const SecAggCohort& roster = *servers.at(name).roster();
  SecAggSet survivors(clients, true);
  std::fill_n(survivors.begin(), clients * 3 / 10, false);
  std::uint32_t masks = 0;
  for (std::uint32_t gone = 0; gone < clients * 3 / 10; ++gone) masks += roster.count_neighbours(gone, survivors);
  state.counters["masks"] = masks;
  state.counters["degree"] = roster.degree();
  state.counters["threshold"] = roster.threshold();
  state.SetItemsProcessed(state.range(1) * state.iterations());
}

void SecAggUnmaskCurious(benchmark::State& state) { unmask(state, ServerModel::curious); }
void SecAggUnmaskSemiMalicious(benchmark::State& state) { unmask(state, ServerModel::semi_malicious); }

/// SecAggClient::mask(): agreements, masks and encoding of range(1) parameters of range(2) bits for range(0) - 1
/// neighbours.
void SecAggClientInput(benchmark::State& state) {
  const auto clients = static_cast<std::size_t>(state.range(0));
  SecAggPlan plan = plan_of(ServerModel::semi_malicious, state.range(1), state.range(2));
  plan.dropout_rate = 0;
  plan.adversary_rate = 0.89;  // so many that only the complete graph will do
  Cohort cohort(clients, plan);
  const SecAggBytes inbox = cohort.inbox_of_first();
  const std::vector<std::uint64_t> input(plan.length, 1);
  for (auto _ : state) {
    state.PauseTiming();
    SecAggClient client = cohort.first_before_input();
    state.ResumeTiming();
    benchmark::DoNotOptimize(client.mask(inbox, input));
  }
  state.SetItemsProcessed(state.range(1) * state.iterations());
}

/// The server's cost of a client's vector: range(0) parameters of range(1) bits.
void SecAggAddInput(benchmark::State& state) {
  std::vector<std::uint64_t> values(static_cast<std::size_t>(state.range(0)), 0x0123456789abcdef);
  const auto bits = static_cast<unsigned>(state.range(1));
  const SecAggBytes message = encode_input({}, values, bits);
  for (auto _ : state) {
    add_input({}, message, bits, values);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.range(0) * state.iterations());
  state.SetBytesProcessed(static_cast<std::int64_t>(message.size()) * state.iterations());
}

BENCHMARK(SecAggUnmaskCurious)->Args({20, 1'000, 32})->Args({500, 100'000, 32})->Unit(benchmark::kMillisecond);
BENCHMARK(SecAggUnmaskSemiMalicious)
    ->Args({20, 1'000, 32})
    ->Args({500, 100'000, 32})
    ->Args({500, 100'000, 56})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(SecAggClientInput)
    ->Args({20, 1'000, 32})
    ->Args({101, 1'000'000, 32})
    ->Args({101, 1'000'000, 56})
    ->Args({101, 1'000'000, 64})
    ->Unit(benchmark::kMillisecond);
BENCHMARK(SecAggAddInput)->Args({1'000, 32})->Args({1'000'000, 32})->Args({1'000'000, 56});

}  // namespace
}  // namespace fl
