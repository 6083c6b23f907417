#include "aggregator/engine/secure_collector.h"

#include <algorithm>
#include <atomic>
#include <functional>
#include <set>
#include <thread>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/wire/limits.h"
#include "fl_core/wire/message.h"

namespace fl {
namespace {

constexpr std::uint32_t kShare = 2;
constexpr std::uint32_t kInput = 3;
constexpr std::uint32_t kConfirm = 4;
constexpr std::uint32_t kReveal = 5;

ClientOutcome* member_of(RoundReport& report, ClientId client) {
  const auto found = std::lower_bound(report.cohort.begin(), report.cohort.end(), client, [](const ClientOutcome& one, ClientId id) { return one.client < id; });
  return found != report.cohort.end() && found->client == client ? &*found : nullptr;
}

/// Whether so many honest clients can have sent these totals. They are claims like all that a client says.
bool plausible(const SecureTotalsSum& totals, std::uint64_t terms) {
  return totals.weight >= terms && totals.weight <= terms * ExactSum::kMaxWeight && totals.examples <= terms * static_cast<std::uint64_t>(limits::kClientExamples);
}

/// Everybody else waits for the unmasking, so it may have the whole machine.
void on_all_cores(std::size_t count, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next = 0;
  const auto run = [&] {
    for (std::size_t i = next++; i < count; i = next++) work(i);
  };
  const std::size_t helpers = std::min<std::size_t>(count, std::max(1U, std::thread::hardware_concurrency())) - std::min<std::size_t>(count, 1);
  std::vector<std::jthread> threads;
  for (std::size_t i = 0; i < helpers; ++i) threads.emplace_back(run);
  run();
}

}  // namespace

SecureCollector::SecureCollector(SecureCollectorParts parts) : parts_(std::move(parts)), session_(session_of(parts_.run)) {
  check_plan(parts_.plan);
}

void SecureCollector::begin(const SecureHeader& header, std::span<const std::byte> weights) {
  header_ = header;
  peers_.clear();
  credentials_.clear();
  reason_.clear();
  server_.emplace(SecAggRound{session_, header.round, Sha256().add(weights).finish()}, parts_.plan, peers_);
  server_->set_parallel(on_all_cores);
}

void SecureCollector::add_advert(ClientId client, const Message& answer) {
  const auto body = answer.body().span();
  if (body.size() < kAdvertMessageBytes) throw ProtocolError("an advert of " + std::to_string(body.size()) + " bytes");
  const auto credential = body.subspan(kAdvertMessageBytes);
  peers_.add(client, credential, *parts_.judge);
  try {
    const SecAggReceipt receipt = server_->add_advert(client, body.first(kAdvertMessageBytes));
    if (receipt != SecAggReceipt::counted) throw ProtocolError("an advert that came too late");
  } catch (...) {
    // A certificate is no secret: only who signs with its key has that identity.
    peers_.remove(client);
    throw;
  }
  credentials_.emplace_back(client, std::vector<std::byte>(credential.begin(), credential.end()));
}

std::vector<SecAggMail> SecureCollector::with_credentials(std::vector<SecAggMail> rosters) const {
  std::vector<Credential> sorted = credentials_;
  std::sort(sorted.begin(), sorted.end());
  for (SecAggMail& mail : rosters) mail.bytes = encode_envelope(sorted, mail.bytes);
  return rosters;
}

std::optional<SecureSum> SecureCollector::finish(Transport& transport, RoundReport& report) {
  std::vector<SecAggMail> mails = with_credentials(server_->close_adverts());
  for (std::uint32_t step = kShare; step <= kReveal && server_->step() != SecAggStep::aborted; ++step) {
    exchange(transport, report, step, mails);
    mails = step < kReveal ? close(step) : std::vector<SecAggMail>();
  }
  std::optional<SecAggSum> sum;
  if (server_->step() != SecAggStep::aborted) sum = server_->finish();
  if (!sum) reason_ = server_->abort_reason() + (reason_.empty() ? "" : "; last reason: " + reason_);
  std::optional<SecureSum> result;
  if (sum) {
    result.emplace();
    result->values.resize(parts_.vector.parameters());
    result->terms = sum->survivors.size();
    result->totals = parts_.vector.read(sum->values, result->values);
    if (parts_.vector.has_totals() && !plausible(result->totals, result->terms)) {
      reason_ = "secure aggregation, round " + std::to_string(header_.round) + ": the sum of weights or examples is not one that honest clients can have sent";
      result.reset();
    }
  }
  // Whoever left after its vector was in is in the sum.
  const std::set<ClientId> survivors = sum ? std::set<ClientId>(sum->survivors.begin(), sum->survivors.end()) : std::set<ClientId>();
  for (ClientOutcome& member : report.cohort) {
    if (result && survivors.contains(member.client)) {
      member.outcome = Outcome::accepted;
    } else if (member.outcome == Outcome::accepted) {
      member.outcome = result ? Outcome::late : Outcome::not_summed;
    }
  }
  server_.reset();
  return result;
}

void SecureCollector::exchange(Transport& transport, RoundReport& report, std::uint32_t step, const std::vector<SecAggMail>& mails) {
  SecureHeader header = header_;
  header.step = step;
  std::set<ClientId> waiting;
  for (const SecAggMail& mail : mails) {
    const Message message = encode_secure(MessageType::secure_step, header, SharedBuffer::copy_of(mail.bytes));
    report.bytes_down += message.size_bytes();
    transport.send(mail.client, message);
    waiting.insert(mail.client);
  }
  const Seconds deadline = transport.now() + parts_.step_timeout;
  while (!waiting.empty()) {
    const auto arrival = transport.wait(deadline);
    if (!arrival) return;
    // The train task of somebody who was too late comes back as closed.
    if (arrival->round != header_.round || arrival->kind == Arrival::Kind::closed || !waiting.contains(arrival->client)) continue;
    waiting.erase(arrival->client);
    judge(*arrival, step, report);
  }
}

void SecureCollector::judge(const Arrival& arrival, std::uint32_t step, RoundReport& report) {
  Outcome outcome = Outcome::accepted;
  if (arrival.kind != Arrival::Kind::message) {
    outcome = Outcome::left;
  } else {
    const Message& message = *arrival.message;
    report.bytes_up += message.size_bytes();
    try {
      if (message.type() == MessageType::failed) {
        reason_ = parse_failure(message);
        outcome = Outcome::failed;
      } else {
        const SecureHeader header = parse_secure_header(message);
        if (header.round != header_.round || header.model_version != header_.model_version || header.fingerprint != header_.fingerprint || header.step != step) {
          throw ProtocolError("an answer to another step");
        }
        take(step, arrival.client, message.body().span());
      }
    } catch (const ProtocolError& error) {
      reason_ = "client " + std::to_string(arrival.client) + ": " + error.what();
      outcome = Outcome::malformed;
    }
  }
  if (outcome == Outcome::accepted) return;
  if (ClientOutcome* member = member_of(report, arrival.client)) member->outcome = outcome;
}

void SecureCollector::take(std::uint32_t step, ClientId client, SecAggView body) {
  switch (step) {
    case kShare: server_->add_shares(client, body); break;
    case kInput: server_->add_input(client, body); break;
    case kConfirm: server_->add_confirmation(client, body); break;
    default: server_->add_reveal(client, body); break;
  }
}

std::vector<SecAggMail> SecureCollector::close(std::uint32_t step) {
  switch (step) {
    case kShare: return server_->close_shares();
    case kInput: return server_->close_inputs();
    default: return server_->close_confirmations();
  }
}

}  // namespace fl
