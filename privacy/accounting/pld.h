#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "privacy/accounting/event.h"
#include "privacy/accounting/loss_power.h"

namespace fl {

/// Accounts with privacy loss distributions: the losses of one round are put on a grid, pessimistically (connect the
/// dots, privacy_loss.h), composed by FFT (loss_power.h) in both directions, and the larger ε or δ is the answer.
///
/// The grid's interval is the one asked for, times a power of two where the losses of one event would need more than
/// 2^21 places (all of them more than 2^23) or their composition more than LossComposition::kMaxWindow; and it is
/// refined by powers of eight while the answer is below 64 intervals. Finer grids give smaller ε. Gaussian events
/// without sampling compose exactly, to one.
///
/// Keeps the bases of the last few settings, so that ε after t rounds for many t costs one FFT each direction
/// (milliseconds; the first one some 10 ms more). At most about 400 MB, a few MB for usual settings. Not thread-safe.
class PldComposer {
 public:
  /// REQUIRES: interval > 0.
  explicit PldComposer(double interval) : interval_(interval) {}

  /// See Accountant. Throws ConfigError for events that are not Gaussian.
  double epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency);
  double delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency);

 private:
  /// Equal events, together.
  struct Part {
    double q;
    double noise_multiplier;
    std::uint64_t count;
  };
  struct Parts {
    std::vector<Part> parts;
    bool unprotected = false;  ///< some event has no noise
    Adjacency adjacency = Adjacency::add_or_remove_one;
    double reach = 0;  ///< see GaussianLossesShape
    double count = 0;
  };
  /// The losses of one event in both directions; `add` is missing where it equals `remove`.
  struct Bases {
    GaussianLossesShape shape;
    std::shared_ptr<LossBase> remove;
    std::shared_ptr<LossBase> add;
  };
  struct Answer {
    std::optional<double> value;
    double places = 0;  ///< of the larger window
  };
  /// Asks one direction; answers of at most the second argument need not be exact.
  using Question = std::function<std::optional<double>(LossComposition&, double at_least)>;

  static Parts merged(std::span<const PrivacyEvent> events, Adjacency adjacency);
  std::optional<double> answer(const Parts& parts, const Question& question,
                               const std::function<double(double)>& epsilon_of);
  double refined(const Parts& parts, const Question& question, const std::function<double(double)>& epsilon_of,
                 Answer coarse);
  Answer answer_on(const Parts& parts, double interval, const Question& question);
  Bases bases(const GaussianLossesShape& shape);

  double interval_;
  FftCache ffts_;
  std::list<Bases> bases_;  ///< the last used first
};

}  // namespace fl
