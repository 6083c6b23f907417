#include "aggregator/engine/federation.h"

#include <algorithm>
#include <ctime>

#include "fl_core/base/error.h"
#include "fl_core/wire/tensors.h"

namespace fl {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

bool due(std::int64_t every, const RoundReport& report) { return every > 0 && report.round % every == 0; }

void describe(const Evaluation& sums, RoundReport& report) {
  report.accuracy = sums.accuracy();
  report.loss = sums.loss();
  report.class_accuracy.clear();
  for (std::size_t c = 0; c < sums.examples.size(); ++c) {
    report.class_accuracy.push_back(sums.examples[c] == 0 ? 0 : static_cast<double>(sums.correct[c]) / static_cast<double>(sums.examples[c]));
  }
}

/// CPU seconds of all threads of this process.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// Strategy::state() as write_named_arrays wants it.
std::vector<std::pair<std::string, std::span<const float>>> readable(Strategy& strategy) {
  std::vector<std::pair<std::string, std::span<const float>>> arrays;
  for (const auto& [name, values] : strategy.state()) arrays.emplace_back(name, values);
  return arrays;
}

std::string outcome_counts(const RoundReport& report) {
  std::string text;
  for (std::size_t i = 1; i < kOutcomes; ++i) {
    const auto outcome = static_cast<Outcome>(i);
    const std::size_t count = report.count(outcome);
    if (count != 0) text += (text.empty() ? "" : ", ") + std::to_string(count) + " " + outcome_name(outcome);
  }
  return text.empty() ? "nobody was asked" : text;
}

}  // namespace

Federation::Federation(FederationParts parts, ParameterVector initial) : parts_(std::move(parts)), global_(std::move(initial)) {
  const auto& specs = parts_.experiment.observers;
  for (std::size_t i = 0; i < specs.size(); ++i) {
    observers_.push_back(observers().create(specs[i], "observers." + std::to_string(i)));
  }
}

void Federation::restore() {
  Store& store = parts_.folder.store();
  const auto last = store.last_round();
  if (!last) {
    commit(RoundReport{});
    return;
  }
  last_ = *last;
  if (parts_.set_clock) parts_.set_clock(last_.virtual_seconds);
  read_into(parts_.folder.read_blob(last_.model_sha256), *global_.layout(), global_.values(), "the checkpoint of round " + std::to_string(last_.round));
  if (last_.state_sha256) read_named_arrays(parts_.folder.read_blob(*last_.state_sha256), parts_.strategy.state(), "the server state of round " + std::to_string(last_.round));
  parts_.strategy.set_steps(last_.server_steps);
  if (PrivacyGuard* privacy = parts_.engine.privacy()) privacy->restore(store.privacy_state());
  totals_.model_sha256 = last_.model_sha256;
  for (const RoundReport& report : store.reports()) {
    if (report.round == 0) continue;
    count_training(report);
    totals_.stopped_early = observe(published(report)) == Verdict::stop;
  }
  // A crash between commit and completion: the round is done, its evaluation is not.
  if (const auto report = store.incomplete_report(); report && report->round != 0) {
    count_training(*report);
    open(*report);
  }
}

void Federation::run() {
  try {
    restore();
    run_rounds();
    complete();
  } catch (const Interrupted&) {
    rescue(false);
    throw;
  } catch (...) {
    rescue(true);
    throw;
  }
}

void Federation::run_rounds() {
  const auto rounds = static_cast<std::uint32_t>(parts_.experiment.rounds);
  while (last_.round < rounds && !totals_.stopped_early) {
    if (parts_.should_stop && parts_.should_stop()) throw Interrupted("the run was interrupted");
    if (PrivacyGuard* privacy = parts_.engine.privacy()) privacy->charge(last_.round + 1);
    run_round();
  }
}

void Federation::run_round() {
  std::uint32_t version = last_.model_version;
  double cpu = cpu_seconds();
  RoundReport report = parts_.engine.run_round(last_.round + 1, global_, version, [this] { look(); });
  totals_.cpu_seconds_rounds += cpu_seconds() - cpu;
  // A crash leaves at most one round that is committed and not completed.
  complete();
  const auto begin = Clock::now();
  cpu = cpu_seconds();
  commit(report);
  totals_.seconds_rounds += report.wall_seconds + seconds_since(begin);
  totals_.cpu_seconds_rounds += cpu_seconds() - cpu;
  open(std::move(report));
}

void Federation::commit(const RoundReport& report) {
  CommittedRound next;
  next.round = report.round;
  next.model_version = report.model_version;
  next.server_steps = parts_.strategy.steps();
  next.virtual_seconds = report.virtual_seconds;
  next.abandoned = report.abandoned;
  if (const PrivacyGuard* privacy = parts_.engine.privacy()) next.privacy_state = privacy->state();
  const Bytes model = write_safetensors(*global_.layout(), global_.values());
  const auto state = readable(parts_.strategy);
  const Bytes state_bytes = state.empty() ? Bytes() : write_named_arrays(state);
  totals_.model_sha256 = parts_.folder.commit(next, report, model.span(), state_bytes.span());
  next.model_sha256 = totals_.model_sha256;
  last_ = next;
  count_training(report);
  parts_.engine.committed(report);
}

void Federation::open(RoundReport report) {
  OpenRound round{std::move(report), nullptr, Clock::now()};
  const bool last = round.report.round == static_cast<std::uint32_t>(parts_.experiment.rounds);
  if (parts_.evaluate && (last || due(parts_.experiment.evaluation.every, round.report))) {
    round.evaluation = parts_.evaluate(SharedBuffer::copy_of(global_.bytes()));
    round.alone = seconds_since(round.begun);
  }
  const bool wait = next_round_waits_for(round);
  open_ = std::move(round);
  if (wait) complete();
}

bool Federation::next_round_waits_for(const OpenRound& round) const {
  const bool is_the_last = round.report.abandoned && abandoned_in_a_row_ + 1 >= parts_.experiment.round.max_abandoned;
  const auto may_stop = [](const std::unique_ptr<Observer>& observer) { return observer->may_stop(); };
  return !round.evaluation || is_the_last || measures_clients(round.report) || std::any_of(observers_.begin(), observers_.end(), may_stop);
}

bool Federation::measures_clients(const RoundReport& report) const { return due(parts_.experiment.evaluation.per_client_every, report); }

void Federation::look() {
  if (open_ && open_->evaluation->ready()) complete();
}

void Federation::complete() {
  if (!open_) return;
  const auto start = Clock::now();
  OpenRound round = *std::exchange(open_, std::nullopt);
  RoundReport& report = round.report;
  if (round.evaluation) describe(round.evaluation->result(), report);
  if (measures_clients(report)) report.client_accuracy = parts_.engine.evaluate_clients(report.round, global_, report.model_version);
  report.wall_seconds_evaluation = seconds_since(round.begun);
  report.wall_seconds_evaluation_alone = round.alone + seconds_since(start);
  parts_.folder.complete(report);
  const RoundReport shown = published(report);
  const bool stop = observe(shown) == Verdict::stop;
  totals_.stopped_early = stop && report.round < static_cast<std::uint32_t>(parts_.experiment.rounds);
  if (parts_.on_round) parts_.on_round(shown);
  give_up_if_stuck(report);
}

/// What is thrown here would hide why the run ends.
void Federation::rescue(bool may_wait) noexcept {
  try {
    if (open_ && (may_wait || open_->evaluation->ready())) complete();
  } catch (...) {
    return;
  }
}

/// A round counts once it is committed, even when its evaluation is interrupted.
void Federation::count_training(const RoundReport& report) {
  totals_.rounds = report.round;
  totals_.client_rounds += report.count(Outcome::accepted);
  totals_.examples += report.examples;
  totals_.bytes_down += report.bytes_down;
  totals_.bytes_up += report.bytes_up;
  totals_.seconds_training += report.wall_seconds;
}

Verdict Federation::observe(const RoundReport& report) {
  totals_.seconds_evaluation += report.wall_seconds_evaluation_alone;
  if (report.accuracy) totals_.accuracy = report.accuracy;
  if (report.loss) totals_.loss = report.loss;
  if (!report.client_accuracy.empty()) totals_.client_accuracy = report.client_accuracy;
  abandoned_in_a_row_ = report.abandoned ? abandoned_in_a_row_ + 1 : 0;
  Verdict verdict = Verdict::go_on;
  for (const auto& observer : observers_) {
    if (observer->after_round(report) == Verdict::stop) verdict = Verdict::stop;
  }
  return verdict;
}

void Federation::give_up_if_stuck(const RoundReport& report) {
  if (abandoned_in_a_row_ < parts_.experiment.round.max_abandoned) return;
  const std::string after = "gave up after " + std::to_string(abandoned_in_a_row_) + " abandoned rounds in a row";
  if (report.privacy && report.privacy->cohort_is_secret) {
    throw TrainingError(after + ": fewer answered than round.minimum_updates (" + std::to_string(parts_.experiment.round.minimum_updates) + "); the journal knows who did not");
  }
  std::string reason = parts_.engine.last_reason();
  if (!reason.empty()) reason = "; last reason: " + reason;
  throw TrainingError(after + " (round " + std::to_string(report.round) +
                      " needs " + std::to_string(parts_.experiment.round.minimum_updates) + " updates, got " +
                      std::to_string(report.count(Outcome::accepted)) + ": " + outcome_counts(report) + ")" + reason);
}

}  // namespace fl
