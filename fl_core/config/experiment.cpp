#include "fl_core/config/experiment.h"

#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/config/device.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/registry.h"

namespace fl {

void RoundOptions::fields(Fields& f) {
  f.integer("cohort", cohort, {1, 1'000'000}, "clients whose updates make a round");
  f.number("over_selection", over_selection, {1, 10}, "asks cohort × this many clients and closes when `cohort` answered");
  f.optional_number("deadline_s", deadline_s, {0, 1e7, true}, "closes the round after this long, whoever is missing", "s");
  f.integer("minimum_updates", minimum_updates, {1, 1'000'000}, "a round with fewer accepted updates is abandoned");
  f.integer("max_abandoned", max_abandoned, {1, 1'000'000}, "this many abandoned rounds in a row end the run");
  f.choice("weighting", weighting, {"examples", "uniform"}, "an update counts by its client's examples, or each the same");
  f.integer("weight_cap", weight_cap, {1, 1LL << 40}, "a client's examples count up to this many; above 65535 weights are scaled to 16 bits");
  f.integer("update_bound_bits", update_bound_bits, {-10, 16}, "an update with some |delta| >= 2^this is rejected");
}

std::uint64_t RoundOptions::selected() const {
  return static_cast<std::uint64_t>(std::ceil(static_cast<double>(cohort) * over_selection));
}

void EvaluationOptions::fields(Fields& f) {
  f.integer("every", every, {0, 1'000'000'000}, "evaluates on the test set after every n-th round and after the last; 0 only after the last");
  f.integer("per_client_every", per_client_every, {0, 1'000'000'000}, "evaluates on clients' held-out examples after every n-th round; 0 never");
  f.integer("per_client_count", per_client_count, {1, 1'000'000}, "how many clients a per-client evaluation asks");
  f.number("client_holdout", client_holdout, {0, 0.9}, "share of each client's examples kept from training, for per-client evaluation");
}

void PrivacyOptions::fields(Fields& f) {
  f.component("mechanism", mechanism, "mechanism", "who bounds updates and who adds which noise");
  f.choice("unit", unit, {"client", "example"}, "whose record the promise protects: all of a client's data, or one example");
  f.optional_number("epsilon", epsilon, {0, 1e6, true}, "the promise for all rounds: the noise follows from it; null: noise_multiplier is given");
  f.optional_number("noise_multiplier", noise_multiplier, {0, 1e6}, "noise standard deviation over the clip norm; null: it follows from epsilon; 0: no noise and no privacy");
  f.optional_number("delta", delta, {0, 0.5, true}, "chance that the promise fails; choose it below 1 / number of records");
  f.choice("adjacency", adjacency, {"add_or_remove_one", "replace_one"}, "which data sets are neighbours");
  f.choice("sampling", sampling, {"none", "poisson"}, "poisson: counts on the poisson sampler's secret cohorts; none: counts every client in every round it may take part in");
  f.optional_number("sampling_rate", sampling_rate, {0, 1, true}, "poisson: each client's chance to take part in a round; null: round.cohort / number of clients");
  f.component("accountant", accountant, "accountant", "how rounds are composed to one epsilon");
  f.choice("randomness", randomness, {"secure", "seeded"}, "secure: from OpenSSL, never the same twice; seeded: from the experiment's seed, for simulations, NOT private");
}

void PrivacyOptions::check() const {
  if (epsilon && noise_multiplier) {
    bad_value("privacy.noise_multiplier", *noise_multiplier, "null when privacy.epsilon is given: the noise follows from it; leave one of the two out");
  }
  if (!epsilon && !noise_multiplier) bad_value("privacy.epsilon", nullptr, "a target, for instance 8, or a privacy.noise_multiplier instead");
  if (!delta) bad_value("privacy.delta", nullptr, "a chance below 1 / number of records, for instance 1e-5");
  if (sampling_rate && sampling != "poisson") bad_value("privacy.sampling_rate", *sampling_rate, "null unless privacy.sampling is \"poisson\"");
}

void DeviceOptions::fields(Fields& f) {
  f.number("examples_per_s", examples_per_s, {0, 1e12, true}, "training speed of the median device", "1/s");
  f.number("speed_spread", speed_spread, {0, 5}, "sigma of the log-normal factor between devices; 0 makes all alike");
  f.number("bandwidth_mbit_s", bandwidth_mbit_s, {0, 1e9, true}, "up- and download speed", "Mbit/s");
  f.number("latency_s", latency_s, {0, 1e4}, "added to every exchange", "s");
  f.number("failure_probability", failure_probability, {0, 1}, "chance that a device leaves during a task");
}

void SecureAggregationOptions::fields(Fields& f) {
  f.number("adversary_rate", adversary_rate, {0, 0.9}, "at most this share of a round's clients works with the server");
  f.number("dropout_rate", dropout_rate, {0, 0.9}, "at most this share of those that trained may leave before the sum is unmasked; with more the round is abandoned");
  f.choice("server", server, {"semi_malicious", "curious"}, "what is withstood: a server that tells clients different survivors, or one that only reads");
  f.integer("security_bits", security_bits, {1, 128}, "privacy fails with a chance of at most 2^-this for each round");
  f.integer("correctness_bits", correctness_bits, {1, 128}, "a round with no more drop-outs than planned fails with a chance of at most 2^-this");
  f.integer("minimum_survivors", minimum_survivors, {3, 65'536}, "the fewest updates in a sum", "clients");
  f.optional_integer("value_bits", value_bits, {8, 32}, "updates are rounded at random to this many bits within round.update_bound_bits; null: the exact grid, with the bits of a run without", "bits");
  f.number("step_timeout_s", step_timeout_s, {0, 86'400, true}, "how long the server waits in each step after training", "seconds");
}

void Expectation::fields(Fields& f) {
  f.choice("metric", metric, {"accuracy", "loss"}, "what is compared after the last round");
  f.number("low", low, {}, "lowest value in the band");
  f.number("high", high, {}, "highest value in the band");
  f.text("source", source, "where the band comes from");
}

void Experiment::fields(Fields& f) {
  f.text("name", name, "names the run folder; letters, digits, '.', '_', '-'");
  f.text("description", description, "one sentence for reports");
  f.integer("seed", seed, {0, INT64_MAX}, "the only source of randomness");
  f.integer("rounds", rounds, {1, 10'000'000}, "rounds to run");
  f.component("data", data, "data", "the data set");
  f.component("partition", partition, "partition", "which examples belong to which client");
  f.component("model", model, "model", "the model: a preset, a spec, or a registered module");
  f.component("trainer", trainer, "trainer", "how a client trains");
  f.text("device", device, "where models are trained and measured: cpu, cuda, cuda:N, or a list such as cuda:0,cuda:1 that workers are spread over; bits repeat on one type of device");
  f.component("codec", codec, "codec", "how updates are encoded");
  f.component("strategy", strategy, "strategy", "how updates become the next model");
  f.component("sampler", sampler, "sampler", "how a cohort is chosen");
  f.group("round", [&](Fields& g) { round.fields(g); }, "one round");
  f.group("evaluation", [&](Fields& g) { evaluation.fields(g); }, "what is measured, and when");
  f.components("observers", observers, "observer", "what looks at each round (early stopping)");
  bool has_privacy = privacy.has_value();
  PrivacyOptions privacy_options = privacy.value_or(PrivacyOptions{});
  f.optional_group("privacy", has_privacy, [&](Fields& g) { privacy_options.fields(g); }, "a promise of differential privacy; null: none");
  privacy = has_privacy ? std::optional(privacy_options) : std::nullopt;
  bool has_secure = secure_aggregation.has_value();
  SecureAggregationOptions secure_options = secure_aggregation.value_or(SecureAggregationOptions{});
  f.optional_group("secure_aggregation", has_secure, [&](Fields& g) { secure_options.fields(g); }, "the server learns only the sum of a round's updates; null: it sees each");
  secure_aggregation = has_secure ? std::optional(secure_options) : std::nullopt;
  bool has_devices = devices.has_value();
  DeviceOptions device_options = devices.value_or(DeviceOptions{});
  f.optional_group("devices", has_devices, [&](Fields& g) { device_options.fields(g); },
                   "speed and reliability of simulated devices; null: every client answers at once");
  devices = has_devices ? std::optional(device_options) : std::nullopt;
  bool has_expectation = expect.has_value();
  Expectation expectation = expect.value_or(Expectation{});
  f.optional_group("expect", has_expectation, [&](Fields& g) { expectation.fields(g); }, "the band that the result must reach");
  expect = has_expectation ? std::optional(expectation) : std::nullopt;
}

namespace {

void check_name(const std::string& name) {
  const bool good = !name.empty() && name.size() <= 100 && name[0] != '.' &&
                    name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == std::string::npos;
  if (!good) bad_value("name", name, "1 to 100 letters, digits, '.', '_' or '-', not starting with '.'");
}

/// Rules of secure aggregation that need nothing but the experiment; privacy/secagg/secure_vector.h has the others.
void check_secure_aggregation(const Experiment& e) {
  constexpr std::uint64_t kMost = 65'536;
  const std::int64_t fewest = e.secure_aggregation->minimum_survivors;
  if (e.round.cohort < fewest) {
    bad_value("round.cohort", e.round.cohort, "at least " + std::to_string(fewest) + " (secure_aggregation.minimum_survivors): a sum of fewer updates would show them");
  }
  if (e.round.selected() > kMost) {
    bad_value("round.cohort", e.round.cohort, "at most " + std::to_string(kMost) + " under secure_aggregation, times round.over_selection");
  }
  if (e.evaluation.per_client_every > 0) {
    bad_value("evaluation.per_client_every", e.evaluation.per_client_every,
              "0 under secure_aggregation: the server would see what each client measured; evaluation.every measures on the test set");
  }
}

void check_together(const Experiment& e) {
  check_name(e.name);
  gpus_of(e.device, "device");
  if (e.round.minimum_updates > e.round.cohort) {
    bad_value("round.minimum_updates", e.round.minimum_updates, "at most round.cohort (" + std::to_string(e.round.cohort) + ")");
  }
  if (e.sampler.at("name") == "poisson" && e.round.over_selection != 1) {
    bad_value("round.over_selection", e.round.over_selection, "1 with the poisson sampler, whose cohorts vary by themselves");
  }
  if (e.evaluation.per_client_every > 0 && e.evaluation.client_holdout == 0) {
    bad_value("evaluation.client_holdout", e.evaluation.client_holdout,
              "a share above 0, because evaluation.per_client_every asks for per-client evaluation");
  }
  if (e.privacy) e.privacy->check();
  if (e.secure_aggregation) check_secure_aggregation(e);
  if (e.expect && e.expect->low > e.expect->high) bad_value("expect.low", e.expect->low, "at most expect.high");
}

}  // namespace

Experiment parse_experiment(const nlohmann::json& document, const std::string& source) {
  try {
    Experiment experiment;
    read_fields(document, "", [&](Fields& f) { experiment.fields(f); });
    check_together(experiment);
    return experiment;
  } catch (const ConfigError& error) {
    throw ConfigError(source + ": " + error.what());
  }
}

Experiment load_experiment(const std::filesystem::path& path, const std::vector<std::string>& settings) {
  nlohmann::json document = read_json_file(path);
  for (const std::string& setting : settings) apply_setting(document, setting);
  return parse_experiment(document, path.string());
}

nlohmann::json to_json(const Experiment& experiment) {
  Experiment copy = experiment;
  nlohmann::json document = write_fields([&](Fields& f) { copy.fields(f); });
  if (copy.device == "cpu") document.erase("device");
  return document;
}

nlohmann::json experiment_schema() {
  Experiment defaults;
  nlohmann::json schema;
  schema["experiment"] = describe_fields([&](Fields& f) { defaults.fields(f); });
  for (const ComponentKind* kind : component_kinds()) {
    for (const std::string& name : kind->names()) {
      schema["components"][kind->kind()][name] = {{"summary", kind->entry(name).summary}, {"options", kind->describe(name)}};
    }
  }
  return schema;
}

}  // namespace fl
