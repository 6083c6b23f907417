#include "aggregator/engine/run.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/memory.h"
#include "fl_core/base/percentile.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/device.h"
#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

/// Mean, p10 and p90 of the last per-client evaluation; null when there was none.
nlohmann::json describe_clients(const std::vector<double>& ascending) {
  if (ascending.empty()) return nullptr;
  const double mean = std::accumulate(ascending.begin(), ascending.end(), 0.0) / static_cast<double>(ascending.size());
  return {{"clients", ascending.size()}, {"mean", mean}, {"p10", percentile(ascending, 0.1)}, {"p90", percentile(ascending, 0.9)}};
}

RunParts with_sampler(RunParts parts) {
  if (!parts.sampler) parts.sampler = samplers().create(parts.experiment.sampler, "sampler");
  return parts;
}

}  // namespace

Run::Run(RunParts parts)
    : parts_(with_sampler(std::move(parts))),
      codec_(codecs().create(parts_.experiment.codec, "codec")),
      strategy_(make_strategy()),
      engine_(RoundParts{parts_.experiment, parts_.transport, *parts_.sampler, *strategy_, *codec_, parts_.initial.layout(), parts_.privacy, parts_.secure,
                         parts_.privacy && parts_.privacy->server() ? nullptr : parts_.on_progress, parts_.on_begin}) {
  FL_CHECK(parts_.experiment.privacy.has_value() == (parts_.privacy != nullptr), "a promise without its guard");
  FL_CHECK(parts_.experiment.secure_aggregation.has_value() == (parts_.secure != nullptr), "secure aggregation without its collector");
  if (parts_.secure && strategy_->needs_individual_updates()) {
    bad_value("strategy.name", parts_.experiment.strategy.at("name"), "a strategy that needs only the sum of the updates, because secure_aggregation shows no single one");
  }
  note_facts();
}

std::unique_ptr<Strategy> Run::make_strategy() {
  StrategyContext context;
  context.layout = parts_.initial.layout();
  context.max_updates = max_updates_of(parts_.experiment, *parts_.sampler, parts_.population, parts_.folder.store());
  context.bound_bits = static_cast<int>(parts_.experiment.round.update_bound_bits);
  return strategies().create(parts_.experiment.strategy, "strategy", context);
}

std::uint64_t max_updates_of(const Experiment& experiment, const Sampler& sampler, std::uint64_t population, Store& store) {
  if (const auto known = store.meta("max_updates")) return std::stoull(*known);
  const auto selected = static_cast<double>(experiment.round.selected());  // a guard has noted its own
  const std::uint64_t most = std::max<std::uint64_t>(1, sampler.max_cohort(population, selected));
  store.set_meta("max_updates", std::to_string(most));
  return most;
}

bool Run::takes_sums() const {
  const bool server_bounds_updates = parts_.privacy && parts_.privacy->server();
  // With over-selection an update counts only when enough earlier ones turned out not to.
  return !strategy_->needs_individual_updates() && !server_bounds_updates && !parts_.secure && parts_.experiment.round.over_selection <= 1;
}

/// A run that goes on must have the same data and the same experiment, but for a number of rounds that may be raised.
void Run::note_facts() {
  check_fact("data_sha256", parts_.data_fingerprint,
             "data: the files have changed since this run began, so it cannot go on to the same bits; restore them, or start a new run");
  nlohmann::json without_rounds = to_json(parts_.experiment);
  without_rounds.erase("rounds");
  // Runs that began before there were these sections go on.
  if (!parts_.experiment.privacy) without_rounds.erase("privacy");
  if (!parts_.experiment.secure_aggregation) without_rounds.erase("secure_aggregation");
  // Which GPU it was is no part of the result.
  if (without_rounds.contains("device")) without_rounds["device"] = device_type(parts_.experiment.device);
  const std::string text = without_rounds.dump();
  check_fact("experiment_sha256", sha256_hex(std::as_bytes(std::span(text))),
             "experiment.json was changed since this run began; only 'rounds' may be: undo the change, or start a new run");
  parts_.folder.store().set_meta("versions", parts_.facts.dump());
}

void Run::check_fact(const std::string& key, const std::string& value, const char* complaint) {
  const auto known = parts_.folder.store().meta(key);
  if (known && *known != value) throw ConfigError(complaint);
  if (!known) parts_.folder.store().set_meta(key, value);
}

nlohmann::json Run::run() {
  Federation federation(FederationParts{parts_.experiment, parts_.folder, engine_, *strategy_, parts_.evaluate, parts_.on_round, parts_.set_clock,
                                        parts_.should_stop},
                        std::move(parts_.initial));
  try {
    federation.run();
  } catch (const Interrupted&) {
    write_summary(federation.totals(), "interrupted");
    throw Interrupted("interrupted after round " + std::to_string(federation.totals().rounds) + " of " + std::to_string(parts_.experiment.rounds) +
                      "; go on with: " + parts_.how_to_go_on);
  } catch (const BudgetExhausted&) {
    write_summary(federation.totals(), "budget_exhausted");
    throw;
  } catch (const TrainingError&) {
    write_summary(federation.totals(), "failed");
    throw;
  }
  return write_summary(federation.totals(), federation.totals().stopped_early ? "stopped_early" : "finished");
}

nlohmann::json Run::write_summary(const FederationTotals& totals, const std::string& status) {
  // What would tell who took part is null.
  const bool secret = parts_.privacy && parts_.privacy->server();
  const auto open = [&](auto value) { return secret ? nlohmann::json(nullptr) : nlohmann::json(value); };
  const auto rate = [&](double count) { return open(totals.seconds_training > 0 ? count / totals.seconds_training : 0); };
  const auto optional = [](const std::optional<double>& value) { return value && std::isfinite(*value) ? nlohmann::json(*value) : nlohmann::json(nullptr); };
  nlohmann::json run = {{"status", status},
                        {"rounds", totals.rounds},
                        {"accuracy", optional(totals.accuracy)},
                        {"loss", optional(totals.loss)},
                        {"client_accuracy", describe_clients(totals.client_accuracy)},
                        {"model_sha256", totals.model_sha256},
                        {"seconds", totals.seconds_training + totals.seconds_evaluation},
                        {"seconds_rounds", totals.seconds_rounds},
                        {"cpu_seconds_rounds", totals.cpu_seconds_rounds},
                        {"train_samples_per_s", rate(static_cast<double>(totals.examples))},
                        {"client_rounds_per_s", rate(static_cast<double>(totals.client_rounds))},
                        {"peak_rss_bytes", peak_rss_bytes()},
                        {"bytes_up", open(totals.bytes_up)},
                        {"bytes_down", open(totals.bytes_down)},
                        {"parameters", engine_.layout()->size()}};
  if (parts_.privacy) run["privacy"] = parts_.privacy->statement();
  run.update(parts_.facts);
  parts_.folder.sync();
  write_file_atomically(parts_.folder.path() / "run.json", run.dump(2) + "\n");
  return run;
}

}  // namespace fl
