#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/base/rng.h"
#include "privacy/secagg/client.h"
#include "privacy/secagg/server.h"

/// A cohort with fixed keys, the honest server, and a wire between them on which a test can read and write.
namespace fl::secagg_test {

inline constexpr std::uint64_t kSeed = 20240601;

/// 32 bytes that follow from two numbers.
inline NoiseKey fixed_key(std::uint64_t kind, std::uint64_t index) {
  Rng rng(kSeed, Purpose::synthetic_data, kind, index);
  NoiseKey key;
  for (std::byte& byte : key) byte = static_cast<std::byte>(rng.next_u32());
  return key;
}

/// Ids that are no places.
inline ClientId id_of(std::size_t index) { return 1000 + 7 * index; }

inline const SigningKey& identity_of(std::size_t index) {
  static std::map<std::size_t, SigningKey> identities;
  const auto found = identities.find(index);
  if (found != identities.end()) return found->second;
  return identities.emplace(index, SigningKey(SecretKey(fixed_key(1, index)))).first->second;
}

class Directory final : public PeerDirectory {
 public:
  explicit Directory(std::size_t clients) {
    for (std::size_t i = 0; i < clients; ++i) keys_[id_of(i)] = identity_of(i).public_key();
  }
  std::optional<PublicKey> identity_key(ClientId client) const override {
    const auto found = keys_.find(client);
    if (found == keys_.end()) return std::nullopt;
    return found->second;
  }

 private:
  std::map<ClientId, PublicKey> keys_;
};

inline SecAggRound some_round() {
  SecAggRound round;
  round.session = fixed_key(2, 0);
  round.round = 5;
  round.model_hash = fixed_key(3, 0);
  return round;
}

/// One of `dropouts` planned drop-outs among `clients`, none of whom works with the server unless the test says so.
inline SecAggPlan plan_for(std::size_t clients, std::size_t dropouts,
                           ServerModel server = ServerModel::semi_malicious) {
  SecAggPlan plan;
  plan.adversary_rate = 0;
  plan.dropout_rate = static_cast<double>(dropouts) / static_cast<double>(clients);
  plan.server = server;
  plan.minimum_survivors = 3;
  plan.bits = 32;
  plan.length = 5;
  return plan;
}

/// When a client is gone: before it answers this step. SecAggStep::done: never.
using History = std::vector<SecAggStep>;

/// Changes what the wire carries to a client: step, receiver's index, bytes.
using Tamper = std::function<void(SecAggStep, std::size_t, SecAggBytes&)>;

class Rig {
 public:
  explicit Rig(std::size_t clients, SecAggPlan plan, SecAggRound round = some_round())
      : round_(round),
        plan_(plan),
        directory_(clients),
        server_(round, plan, directory_),
        history_(clients, SecAggStep::done) {
    const SecAggPolicy policy{0, 1, 3, true};
    for (std::size_t i = 0; i < clients; ++i) {
      clients_.emplace_back(id_of(i), round, plan, policy, identity_of(i), directory_, fixed_key(4, i));
      Rng rng(kSeed, Purpose::synthetic_data, 5, i);
      std::vector<std::uint64_t> input(plan.length);
      for (std::uint64_t& value : input) value = rng.next_u64();
      inputs_.push_back(input);
    }
    to_client_.resize(clients);
    sent_.resize(clients);
  }

  Rig& drop(History history) {
    history_ = std::move(history);
    return *this;
  }
  Rig& tamper(Tamper tamper) {
    tamper_ = std::move(tamper);
    return *this;
  }

  /// The round up to and with that step. Returns what the server ends with after the last.
  std::optional<SecAggSum> run(SecAggStep last = SecAggStep::unmask) {
    std::vector<SecAggMail> mail;
    for (std::size_t i = 0; i < clients_.size(); ++i) mail.push_back({id_of(i), {}});
    for (auto step = SecAggStep::advertise; step <= last; step = next(step)) {
      if (server_.step() == SecAggStep::aborted) return std::nullopt;
      deliver(step, mail);
      mail = close(step);
    }
    if (last != SecAggStep::unmask) pending_ = std::move(mail);
    return last == SecAggStep::unmask ? server_.finish() : std::nullopt;
  }

  static SecAggStep next(SecAggStep step) { return static_cast<SecAggStep>(static_cast<int>(step) + 1); }

  /// What client `index` answers in that step.
  SecAggBytes answer(SecAggStep step, std::size_t index, const SecAggBytes& message) {
    SecAggClient& client = clients_[index];
    switch (step) {
      case SecAggStep::advertise:
        return client.advertise();
      case SecAggStep::share:
        return client.share(message);
      case SecAggStep::input:
        return client.mask(message, inputs_[index]);
      case SecAggStep::consistency:
        return client.confirm(message);
      default:
        return client.unmask(message);
    }
  }
  SecAggReceipt hand_in(SecAggStep step, std::size_t index, const SecAggBytes& message) {
    switch (step) {
      case SecAggStep::advertise:
        return server_.add_advert(id_of(index), message);
      case SecAggStep::share:
        return server_.add_shares(id_of(index), message);
      case SecAggStep::input:
        return server_.add_input(id_of(index), message);
      case SecAggStep::consistency:
        return server_.add_confirmation(id_of(index), message);
      default:
        return server_.add_reveal(id_of(index), message);
    }
  }
  std::vector<SecAggMail> close(SecAggStep step) {
    switch (step) {
      case SecAggStep::advertise:
        return server_.close_adverts();
      case SecAggStep::share:
        return server_.close_shares();
      case SecAggStep::input:
        return server_.close_inputs();
      case SecAggStep::consistency:
        return server_.close_confirmations();
      default:
        return {};
    }
  }

  std::vector<std::uint64_t> sum_of(const std::vector<ClientId>& ids) const {
    const std::uint64_t mask = plan_.bits == 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << plan_.bits) - 1;
    std::vector<std::uint64_t> sum(plan_.length);
    for (const ClientId id : ids) {
      for (std::size_t v = 0; v < sum.size(); ++v) sum[v] = (sum[v] + inputs_[index_of(id)][v]) & mask;
    }
    return sum;
  }
  static std::size_t index_of(ClientId id) { return static_cast<std::size_t>((id - 1000) / 7); }
  /// Ids of those who are not gone before that step.
  std::vector<ClientId> still_there(SecAggStep step) const {
    std::vector<ClientId> ids;
    for (std::size_t i = 0; i < history_.size(); ++i) {
      if (history_[i] > step) ids.push_back(id_of(i));
    }
    return ids;
  }

  const SecAggRound& round() const { return round_; }
  const SecAggPlan& plan() const { return plan_; }
  const Directory& directory() const { return directory_; }
  SecAggServer& server() { return server_; }
  SecAggClient& client(std::size_t index) { return clients_[index]; }
  std::vector<std::uint64_t>& input(std::size_t index) { return inputs_[index]; }
  /// By step: the message that client got, as it got it, and what it sent.
  std::map<SecAggStep, SecAggBytes>& received(std::size_t index) { return to_client_[index]; }
  std::map<SecAggStep, SecAggBytes>& sent(std::size_t index) { return sent_[index]; }
  /// After run() up to a step before the last: what the server wants to send next.
  std::vector<SecAggMail>& pending() { return pending_; }
  SecAggBytes pending_for(std::size_t index) const {
    for (const SecAggMail& mail : pending_) {
      if (mail.client == id_of(index)) return mail.bytes;
    }
    return {};
  }

 private:
  void deliver(SecAggStep step, std::vector<SecAggMail>& mail) {
    for (SecAggMail& each : mail) {
      const std::size_t index = index_of(each.client);
      if (history_[index] <= step || clients_[index].step() == SecAggStep::aborted) continue;
      if (tamper_) tamper_(step, index, each.bytes);
      to_client_[index][step] = each.bytes;
      SecAggBytes bytes;
      try {
        bytes = answer(step, index, each.bytes);
      } catch (const ProtocolError&) {
        continue;
      }
      sent_[index][step] = bytes;
      if (hand_in(step, index, bytes) != SecAggReceipt::counted)
        throw std::logic_error("an honest answer was not counted");
    }
  }

  SecAggRound round_;
  SecAggPlan plan_;
  Directory directory_;
  SecAggServer server_;
  std::vector<SecAggClient> clients_;
  std::vector<std::vector<std::uint64_t>> inputs_;
  History history_;
  Tamper tamper_;
  std::vector<std::map<SecAggStep, SecAggBytes>> to_client_;
  std::vector<std::map<SecAggStep, SecAggBytes>> sent_;
  std::vector<SecAggMail> pending_;
};

/// The reason with which `call` throws ProtocolError; "" if it does not.
template <class Call>
std::string refusal_of(Call call) {
  try {
    call();
  } catch (const ProtocolError& error) {
    return error.what();
  }
  return "";
}

}  // namespace fl::secagg_test
