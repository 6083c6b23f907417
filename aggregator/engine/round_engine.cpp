#include "aggregator/engine/round_engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/params/kernels.h"
#include "fl_core/wire/message.h"

namespace fl {
namespace {

std::size_t position_of(const std::vector<ClientId>& cohort, ClientId client) {
  const auto found = std::lower_bound(cohort.begin(), cohort.end(), client);
  return found != cohort.end() && *found == client ? static_cast<std::size_t>(found - cohort.begin()) : cohort.size();
}

/// Has the transport look while it waits, until the end of the scope.
class LookWhileWaiting {
 public:
  LookWhileWaiting(Transport& transport, const std::function<void()>& look) : transport_(transport) { transport_.while_waiting(look); }
  ~LookWhileWaiting() { transport_.while_waiting(nullptr); }
  LookWhileWaiting(const LookWhileWaiting&) = delete;
  LookWhileWaiting& operator=(const LookWhileWaiting&) = delete;

 private:
  Transport& transport_;
};

}  // namespace

/// Sums over the accepted updates of a round. Losses are what peers say: 128 bits hold any number of 64-bit claims.
struct RoundEngine::Progress {
  __extension__ using Wide = __int128;
  std::uint64_t accepted = 0;
  std::uint64_t summed = 0;  ///< of these, those that the transport added up
  std::int64_t examples = 0;  ///< each claim is at most limits::kClientExamples
  Wide loss_units = 0;
};

/// An update that passed judge(), and is to be added.
struct RoundEngine::Candidate {
  std::size_t place;  ///< in the cohort
  const Arrival* arrival;
  UpdateHeader header;
};

RoundEngine::RoundEngine(RoundParts parts) : parts_(std::move(parts)) {}

std::vector<ClientId> RoundEngine::choose_cohort(std::uint32_t round) {
  const Roster roster = parts_.transport.roster();
  const std::uint64_t wanted = parts_.experiment.round.selected();
  Rng rng = parts_.privacy ? parts_.privacy->sampling(round) : Rng(static_cast<std::uint64_t>(parts_.experiment.seed), Purpose::sampling, round);
  const double expected = parts_.privacy ? parts_.privacy->expected_cohort(roster.size, wanted) : static_cast<double>(wanted);
  return parts_.sampler.pick(roster, expected, round, rng);
}

void RoundEngine::broadcast(TaskKind kind, std::uint32_t round, std::uint32_t version, const ParameterVector& global,
                            const std::vector<ClientId>& cohort, std::uint64_t& bytes_down) {
  const Task task{kind, round, version, parts_.layout->fingerprint(), SharedBuffer::copy_of(global.bytes())};
  const Message message = encode_task(task);
  for (const ClientId client : cohort) {
    parts_.transport.send(client, message);
    bytes_down += message.size_bytes();
  }
}

RoundReport RoundEngine::run_round(std::uint32_t round, ParameterVector& global, std::uint32_t& model_version, const std::function<void()>& look) {
  const LookWhileWaiting looking(parts_.transport, look);
  RoundReport report;
  report.round = round;
  const auto cohort = choose_cohort(round);
  // Waiting until enough clients are there is not the round's time.
  const auto start = std::chrono::steady_clock::now();
  if (parts_.secure) {
    last_reason_.clear();
    parts_.secure->begin({round, model_version, parts_.layout->fingerprint(), 1}, global.bytes());
  }
  broadcast(TaskKind::train, round, model_version, global, cohort, report.bytes_down);
  if (parts_.on_begin) parts_.on_begin(round);
  collect(round, model_version, cohort, report, look);
  if (parts_.secure) {
    const auto sum = parts_.secure->finish(parts_.transport, report);
    parts_.transport.close_round(round);
    if (sum) add(*sum, report);
    const std::string& reason = parts_.secure->reason();
    if (!reason.empty()) last_reason_ = reason + (last_reason_.empty() ? "" : "; last reason: " + last_reason_);
  }
  report.abandoned = !release(global, report);
  if (!report.abandoned) ++model_version;
  report.model_version = model_version;
  report.virtual_seconds = parts_.transport.now();
  report.wall_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

bool RoundEngine::release(ParameterVector& global, RoundReport& report) {
  const std::uint64_t accepted = report.count(Outcome::accepted);
  ServerMechanism* mechanism = parts_.privacy ? parts_.privacy->server() : nullptr;
  const bool enough = mechanism ? parts_.privacy->releases(accepted) : accepted >= static_cast<std::uint64_t>(parts_.experiment.round.minimum_updates);
  ReleaseFacts facts;
  if (enough) {
    Aggregate aggregate;
    if (mechanism) {
      aggregate.mean_delta = ParameterVector(parts_.layout);
      facts = mechanism->release(report.round, aggregate.mean_delta.values());
    } else {
      aggregate = parts_.strategy.finish();
    }
    report.update_norm = std::sqrt(kernels::squared_norm(aggregate.mean_delta.values()));
    parts_.strategy.step(global, aggregate);
  } else if (mechanism) {
    mechanism->discard();
  } else {
    parts_.strategy.discard();
  }
  if (parts_.privacy) parts_.privacy->describe(report, facts, report.update_norm);
  return enough;
}

void RoundEngine::collect(std::uint32_t round, std::uint32_t version, const std::vector<ClientId>& cohort, RoundReport& report,
                          const std::function<void()>& look) {
  const RoundOptions& options = parts_.experiment.round;
  // Without over-selection everyone counts (a Poisson cohort has no fixed size).
  const std::uint64_t needed = options.over_selection > 1 ? static_cast<std::uint64_t>(options.cohort) : cohort.size();
  const Seconds deadline = options.deadline_s ? parts_.transport.now() + *options.deadline_s : kNever;
  for (const ClientId client : cohort) report.cohort.push_back({client, Outcome::late});

  Progress progress;
  std::vector<bool> answered(cohort.size(), false);
  std::size_t outstanding = cohort.size();
  std::vector<Arrival> waiting;
  std::vector<Candidate> updates;
  while (outstanding > 0 && progress.accepted < needed) {
    // What waits is folded together, but never more than the round still needs: nobody beyond it would have been asked.
    waiting.clear();
    for (auto arrival = parts_.transport.wait(deadline); arrival; arrival = parts_.transport.poll()) {
      waiting.push_back(std::move(*arrival));
      if (progress.accepted + waiting.size() >= needed) break;
    }
    if (waiting.empty()) break;
    updates.clear();
    for (const Arrival& arrival : waiting) {
      if (look) look();
      const std::size_t place = position_of(cohort, arrival.client);
      // Answers to earlier rounds come in late; they were counted as late when their round closed.
      if (arrival.round != round || place == cohort.size() || answered[place]) continue;
      answered[place] = true;
      --outstanding;
      if (parts_.on_progress) parts_.on_progress(round, cohort.size() - outstanding, cohort.size());
      UpdateHeader header;
      report.cohort[place].outcome = judge(arrival, version, progress, report, header);
      if (report.cohort[place].outcome == Outcome::accepted && !parts_.secure) updates.push_back({place, &arrival, std::move(header)});
    }
    fold(updates, progress, report);
  }
  parts_.transport.close_round(round);
  if (const auto sum = parts_.transport.take_sum()) {
    FL_CHECK(sum->terms == progress.summed, "the transport added up other updates than it delivered");
    parts_.strategy.add_sum(sum->values, sum->terms, sum->weight);
  }
  report.examples = progress.examples;
  if (progress.examples > 0) {
    report.training_loss =
        static_cast<double>(progress.loss_units) * kLossUnit / static_cast<double>(progress.examples);
  }
}

Outcome RoundEngine::judge(const Arrival& arrival, std::uint32_t version, Progress& progress, RoundReport& report, UpdateHeader& header) {
  if (arrival.kind != Arrival::Kind::message) return Outcome::left;
  const Message& message = *arrival.message;
  report.bytes_up += message.size_bytes() + arrival.summed_bytes.value_or(0);
  try {
    if (message.type() == MessageType::failed) {
      last_reason_ = parse_failure(message);
      return Outcome::failed;
    }
    if (parts_.secure) return judge_advert(arrival, version, progress, report);
    header = parse_update_header(message);
    if (header.round != report.round || header.model_version != version) return Outcome::wrong_round;
    if (header.fingerprint != parts_.layout->fingerprint()) return Outcome::wrong_model;
    if (header.codec != parts_.experiment.codec.at("name").get<std::string>()) throw ProtocolError("encoded with the codec '" + header.codec + "'");
    return Outcome::accepted;
  } catch (const ProtocolError& error) {
    return malformed(arrival.client, error);
  }
}

/// Under secure aggregation the answer to the train task says only that there is an update. What else it may say is known after the sum.
Outcome RoundEngine::judge_advert(const Arrival& arrival, std::uint32_t version, Progress& progress, const RoundReport& report) {
  const SecureHeader header = parse_secure_header(*arrival.message);
  if (header.round != report.round || header.model_version != version || header.step != 1) return Outcome::wrong_round;
  if (header.fingerprint != parts_.layout->fingerprint()) return Outcome::wrong_model;
  parts_.secure->add_advert(arrival.client, *arrival.message);
  ++progress.accepted;
  return Outcome::accepted;
}

void RoundEngine::add(const SecureSum& sum, RoundReport& report) {
  ServerMechanism* mechanism = parts_.privacy ? parts_.privacy->server() : nullptr;
  if (mechanism) return mechanism->add_sum(sum.values, sum.terms);
  const std::uint32_t fixed = parts_.secure->vector().code().weight();
  parts_.strategy.add_sum(sum.values, sum.terms, fixed != 0 ? fixed * sum.terms : sum.totals.weight);
  report.examples = static_cast<std::int64_t>(sum.totals.examples);
  report.steps = sum.totals.steps;
  if (report.examples > 0) report.training_loss = static_cast<double>(sum.totals.loss_units) * kLossUnit / static_cast<double>(report.examples);
}

void RoundEngine::fold(std::span<const Candidate> updates, Progress& progress, RoundReport& report) {
  ServerMechanism* mechanism = parts_.privacy ? parts_.privacy->server() : nullptr;
  std::vector<ExactTerm> terms;
  std::vector<const Candidate*> in_memory;
  for (const Candidate& one : updates) {
    Outcome& outcome = report.cohort[one.place].outcome;
    try {
      // An update that was added up on its way was judged by the same sum.
      if (one.arrival->summed_bytes) {
        outcome = settle(one, ExactSumError::none, progress, report);
        continue;
      }
      const std::span<const float> delta = decoded(one.arrival->message->body());
      // Under a promise every client weighs alike, whatever a peer says.
      const ExactTerm term{delta, parts_.privacy ? ExactSum::kMaxWeight : one.header.weight};
      if (mechanism) {
        outcome = settle(one, mechanism->add(delta), progress, report);
      } else if (delta.data() == decoded_.data()) {
        outcome = settle(one, parts_.strategy.add(delta, term.weight), progress, report);
      } else {
        terms.push_back(term);
        in_memory.push_back(&one);
      }
    } catch (const ProtocolError& error) {
      outcome = malformed(one.arrival->client, error);
    }
  }
  std::vector<ExactSumError> errors(terms.size());
  parts_.strategy.add_all(terms, errors);
  for (std::size_t i = 0; i < errors.size(); ++i) report.cohort[in_memory[i]->place].outcome = settle(*in_memory[i], errors[i], progress, report);
}

Outcome RoundEngine::settle(const Candidate& update, ExactSumError error, Progress& progress, RoundReport& report) {
  switch (error) {
    case ExactSumError::not_finite:
      last_reason_ = "an update holds NaN or infinity; lower trainer.learning_rate or set trainer.clip_norm";
      return Outcome::not_finite;
    case ExactSumError::out_of_bound:
      last_reason_ = "an update moves a weight by 2^round.update_bound_bits or more; lower trainer.learning_rate, or raise the bound";
      return Outcome::out_of_bound;
    case ExactSumError::none:
      break;
  }
  ++progress.accepted;
  if (update.arrival->summed_bytes) ++progress.summed;
  progress.examples += update.header.metrics.examples;
  progress.loss_units += update.header.metrics.loss_units;
  report.steps += update.header.steps;
  return Outcome::accepted;
}

Outcome RoundEngine::malformed(ClientId client, const ProtocolError& error) {
  last_reason_ = "client " + std::to_string(client) + ": " + error.what();
  return Outcome::malformed;
}

/// The floats of an encoded update, valid until the next call.
std::span<const float> RoundEngine::decoded(const SharedBuffer& update) {
  const std::size_t floats = parts_.layout->size();
  if (update.size() > parts_.codec.max_bytes(floats)) throw ProtocolError("the update is longer than the model");
  const std::span<const float> there = parts_.codec.view(update.span(), floats);
  if (!there.empty()) return there;
  decoded_.resize(floats);
  parts_.codec.decode(update.span(), decoded_);
  return decoded_;
}

std::vector<double> RoundEngine::evaluate_clients(std::uint32_t round, const ParameterVector& global,
                                                  std::uint32_t model_version) {
  const RoundOptions& options = parts_.experiment.round;
  Rng rng(static_cast<std::uint64_t>(parts_.experiment.seed), Purpose::evaluation, round);
  const auto uniform = samplers().create({{"name", "uniform"}}, "sampler");
  const auto cohort = uniform->pick(parts_.transport.roster(), static_cast<double>(parts_.experiment.evaluation.per_client_count), round, rng);
  std::uint64_t ignored_bytes = 0;
  broadcast(TaskKind::evaluate, round, model_version, global, cohort, ignored_bytes);
  const Seconds deadline = options.deadline_s ? parts_.transport.now() + *options.deadline_s : kNever;
  std::vector<double> accuracies;
  std::vector<bool> answered(cohort.size(), false);
  std::size_t outstanding = cohort.size();
  while (outstanding > 0) {
    const auto arrival = parts_.transport.wait(deadline);
    if (!arrival) break;
    const std::size_t place = position_of(cohort, arrival->client);
    if (arrival->round != round || place == cohort.size() || arrival->kind == Arrival::Kind::closed || answered[place]) continue;
    answered[place] = true;
    --outstanding;
    if (arrival->kind != Arrival::Kind::message || arrival->message->type() != MessageType::update) continue;
    try {
      const UpdateHeader header = parse_update_header(*arrival->message);
      if (header.round != round || header.model_version != model_version || header.metrics.examples == 0) continue;
      accuracies.push_back(static_cast<double>(header.metrics.correct) / static_cast<double>(header.metrics.examples));
    } catch (const ProtocolError&) {
      continue;  // what a peer says of itself may be missing, and may not stop the run
    }
  }
  parts_.transport.close_round(round);
  std::sort(accuracies.begin(), accuracies.end());
  return accuracies;
}

}  // namespace fl
