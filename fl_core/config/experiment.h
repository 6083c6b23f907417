#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>  // the members below are JSON values, so the forward header is not enough
#include <optional>
#include <string>
#include <vector>

#include "fl_core/config/fields.h"

namespace fl {

/// How one round is run.
struct RoundOptions {
  std::int64_t cohort = 10;
  double over_selection = 1.0;
  std::optional<double> deadline_s;
  std::int64_t minimum_updates = 1;
  std::int64_t max_abandoned = 3;
  std::string weighting = "examples";
  std::int64_t weight_cap = 65535;
  std::int64_t update_bound_bits = 6;

  void fields(Fields& f);
  /// Clients that are asked: cohort × over_selection, rounded up.
  std::uint64_t selected() const;
};

/// What is measured, and when. 0 means never.
struct EvaluationOptions {
  std::int64_t every = 1;
  std::int64_t per_client_every = 0;
  std::int64_t per_client_count = 100;
  double client_holdout = 0;

  void fields(Fields& f);
};

/// A promise of differential privacy; privacy/mechanism/promise.h keeps it.
struct PrivacyOptions {
  nlohmann::json mechanism = {{"name", "central_gaussian"}};
  std::string unit = "client";
  std::optional<double> epsilon;
  std::optional<double> noise_multiplier;
  std::optional<double> delta;
  std::string adjacency = "add_or_remove_one";
  std::string sampling = "none";
  std::optional<double> sampling_rate;
  nlohmann::json accountant = {{"name", "pld"}};
  std::string randomness = "secure";

  void fields(Fields& f);
  /// Rules that need nothing but the section. Throws ConfigError.
  void check() const;
};

/// Secure aggregation: the server learns only the sum of a round's updates. privacy/secagg/README.md has the protocol.
struct SecureAggregationOptions {
  double adversary_rate = 0.1;
  double dropout_rate = 0.2;
  std::string server = "semi_malicious";
  std::int64_t security_bits = 40;
  std::int64_t correctness_bits = 20;
  std::int64_t minimum_survivors = 3;
  std::optional<std::int64_t> value_bits;
  double step_timeout_s = 60;

  void fields(Fields& f);
};

/// How fast and how reliable simulated devices are. Deployed devices ignore it.
struct DeviceOptions {
  double examples_per_s = 1000;
  double speed_spread = 0;
  double bandwidth_mbit_s = 10;
  double latency_s = 0.05;
  double failure_probability = 0;

  void fields(Fields& f);
};

/// The band that a study must reach, and where the band comes from.
struct Expectation {
  std::string metric = "accuracy";
  double low = 0;
  double high = 1;
  std::string source;

  void fields(Fields& f);
};

/// The one experiment schema: everything a run depends on. Component members hold {"name": …, options} with defaults in.
struct Experiment {
  std::string name = "experiment";
  std::string description;
  std::int64_t seed = 1;
  std::int64_t rounds = 10;
  nlohmann::json data;
  nlohmann::json partition;
  nlohmann::json model;
  nlohmann::json trainer;
  std::string device = "cpu";  ///< see gpus_of() in fl_core/config/device.h
  nlohmann::json codec = {{"name", "identity"}};
  nlohmann::json strategy = {{"name", "fedavg"}};
  nlohmann::json sampler = {{"name", "uniform"}};
  nlohmann::json observers = nlohmann::json::array();
  RoundOptions round;
  EvaluationOptions evaluation;
  std::optional<PrivacyOptions> privacy;
  std::optional<SecureAggregationOptions> secure_aggregation;
  std::optional<DeviceOptions> devices;
  std::optional<Expectation> expect;

  void fields(Fields& f);
};

/// Parses and validates; every component's options are resolved with their defaults. Throws ConfigError, whose text
/// begins with `source` (a file name).
Experiment parse_experiment(const nlohmann::json& document, const std::string& source);
/// Reads a file and applies `--set path=value` settings before validation.
Experiment load_experiment(const std::filesystem::path& path, const std::vector<std::string>& settings);
/// The resolved experiment: parse_experiment(to_json(e)) == e. Without "device" for the processor, as it was before there were others: runs
/// are recognised by this text.
nlohmann::json to_json(const Experiment& experiment);
/// Every key with type, default, unit and meaning, and every component of every kind that the program links.
nlohmann::json experiment_schema();

}  // namespace fl
