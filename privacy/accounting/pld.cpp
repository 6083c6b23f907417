#include "privacy/accounting/pld.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <utility>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
/// Most losses of one base, and of all bases of a composition.
constexpr double kMaxLosses = 1 << 21;
constexpr double kMaxAllLosses = 1 << 23;
/// Bases that are kept for later.
constexpr std::size_t kKeptBases = 4;
/// An answer below so many intervals is worth a finer grid, by this factor, so often at most.
constexpr double kCoarse = 64;
constexpr double kFiner = 8;
constexpr int kMostFiner = 6;
/// Windows of more places resolve their distribution well enough at any ε.
constexpr double kFineWindow = 1 << 16;
/// More noise is counted as this much, so that numbers do not underflow.
constexpr double kMostNoise = 1e12;

/// How far to look, so that what lies beyond in `count` repetitions is no part of `delta`.
double reach_for(double count, double delta) {
  struct Tail {
    double reach;
    double mass;
  };
  constexpr std::array<Tail, 6> tails{
      {{8.5, 9.5e-18}, {9.5, 1.1e-21}, {11.4, 2.1e-30}, {13.4, 3.1e-41}, {20, 2.8e-89}, {35, 1.2e-268}}};
  for (const Tail& tail : tails) {
    if (count * tail.mass <= 1e-9 * delta) return tail.reach;
  }
  return tails.back().reach;
}

void check_event(const PrivacyEvent& event) {
  if (event.kind != PrivacyEvent::Kind::gaussian) {
    const bool discrete = event.kind == PrivacyEvent::Kind::discrete_gaussian;
    throw ConfigError("accountant pld: cannot account for " + std::string(discrete ? "discrete_gaussian" : "skellam") +
                      " noise, only for Gaussian sums; use rdp");
  }
  FL_CHECK(event.sampling_rate >= 0 && event.sampling_rate <= 1 && event.noise_multiplier >= 0,
           "a privacy event's numbers");
}

}  // namespace

PldComposer::Parts PldComposer::merged(std::span<const PrivacyEvent> events, Adjacency adjacency) {
  Parts merged;
  merged.adjacency = adjacency;
  std::vector<Part> all;
  for (const PrivacyEvent& event : events) {
    check_event(event);
    if (event.count == 0 || event.sampling_rate == 0) continue;
    merged.unprotected |= event.noise_multiplier == 0;
    all.push_back({event.sampling_rate, std::min(event.noise_multiplier, kMostNoise), event.count});
  }
  // Sorted, so that the order of the events cannot change a bit of the answer.
  const auto key = [](const Part& part) { return std::tie(part.q, part.noise_multiplier, part.count); };
  std::sort(all.begin(), all.end(), [&](const Part& a, const Part& b) { return key(a) < key(b); });
  double precision = 0;
  for (const Part& part : all) {
    std::vector<Part>& parts = merged.parts;
    if (part.q == 1) {
      precision += static_cast<double>(part.count) / (part.noise_multiplier * part.noise_multiplier);
    } else if (!parts.empty() && parts.back().q == part.q && parts.back().noise_multiplier == part.noise_multiplier) {
      parts.back().count += part.count;
    } else {
      parts.push_back(part);
    }
  }
  if (precision > 0) merged.parts.push_back({1, 1 / std::sqrt(precision), 1});
  for (const Part& part : merged.parts) merged.count += static_cast<double>(part.count);
  return merged;
}

double PldComposer::epsilon(std::span<const PrivacyEvent> events, double delta, Adjacency adjacency) {
  FL_CHECK(delta > 0 && delta < 1, "a delta outside (0, 1)");
  Parts parts = merged(events, adjacency);
  if (parts.unprotected) return kInfinity;
  if (parts.parts.empty()) return 0;
  parts.reach = reach_for(parts.count, delta);
  const Question question = [&](LossComposition& composition, double at_least) {
    return composition.epsilon(delta, at_least);
  };
  return answer(parts, question, [](double value) { return value; }).value_or(kInfinity);
}

double PldComposer::delta(std::span<const PrivacyEvent> events, double epsilon, Adjacency adjacency) {
  FL_CHECK(epsilon >= 0, "a negative epsilon");
  Parts parts = merged(events, adjacency);
  if (parts.parts.empty() && !parts.unprotected) return 0;
  if (epsilon == kInfinity) return parts.unprotected ? 1 : 0;
  if (parts.unprotected) return 1;
  const Question question = [&](LossComposition& composition, double at_least) {
    return composition.delta(epsilon, at_least);
  };
  const auto look = [&](double reach) {
    parts.reach = reach;
    return answer(parts, question, [&](double) { return epsilon; }).value_or(1);
  };
  double reach = reach_for(parts.count, 1e-12);
  double found = look(reach);
  // A smaller δ than that asks for a wider look.
  while (reach_for(parts.count, found) > reach) {
    reach = reach_for(parts.count, found);
    found = std::min(found, look(reach));
  }
  return found;
}

/// Nothing where no grid is coarse enough. `epsilon_of` gives the ε that an answer is about.
std::optional<double> PldComposer::answer(const Parts& parts, const Question& question,
                                          const std::function<double(double)>& epsilon_of) {
  double interval = interval_;
  const auto too_many = [&] {
    double all = 0;
    double largest = 0;
    for (const Part& part : parts.parts) {
      const double count =
          GaussianLossesShape{part.q, part.noise_multiplier, parts.adjacency, interval, parts.reach}.count();
      largest = std::max(largest, count);
      all += count;
    }
    return largest > kMaxLosses || all > kMaxAllLosses;
  };
  while (too_many()) {
    interval *= 2;
    if (interval > 1e9) return std::nullopt;
  }
  while (true) {
    const Answer found = answer_on(parts, interval, question);
    if (found.value) return interval > interval_ ? *found.value : refined(parts, question, epsilon_of, found);
    const double factor =
        std::exp2(std::ceil(std::log2(found.places / static_cast<double>(LossComposition::kMaxWindow))));
    interval *= std::max(2.0, factor);
    if (!(interval < 1e9)) return std::nullopt;
  }
}

double PldComposer::refined(const Parts& parts, const Question& question,
                            const std::function<double(double)>& epsilon_of, Answer coarse) {
  double value = *coarse.value;
  double interval = interval_;
  for (int i = 0; i < kMostFiner; ++i) {
    if (value <= 0 || epsilon_of(value) >= kCoarse * interval || coarse.places > kFineWindow) break;
    interval /= kFiner;
    double all = 0;
    for (const Part& part : parts.parts) {
      all += GaussianLossesShape{part.q, part.noise_multiplier, parts.adjacency, interval, parts.reach}.count();
    }
    if (all > kMaxLosses) break;
    coarse = answer_on(parts, interval, question);
    if (!coarse.value || !(*coarse.value < value * (1 - 1e-6))) break;
    value = *coarse.value;
  }
  return value;
}

PldComposer::Answer PldComposer::answer_on(const Parts& parts, double interval, const Question& question) {
  std::vector<LossPower> remove;
  std::vector<LossPower> add;
  bool one_direction = true;
  for (const Part& part : parts.parts) {
    const Bases found = bases({part.q, part.noise_multiplier, parts.adjacency, interval, parts.reach});
    one_direction = one_direction && !found.add;
    remove.push_back({found.remove, part.count});
    add.push_back({found.add ? found.add : found.remove, part.count});
  }
  LossComposition removed(std::move(remove), ffts_);
  const std::optional<double> first = question(removed, 0);
  if (one_direction || !first) return {first, removed.places()};
  LossComposition added(std::move(add), ffts_);
  const std::optional<double> second = question(added, *first);
  const double places = std::max(removed.places(), added.places());
  if (!second) return {std::nullopt, places};
  return {second, places};
}

PldComposer::Bases PldComposer::bases(const GaussianLossesShape& shape) {
  const auto key = [](const GaussianLossesShape& s) {
    return std::tie(s.q, s.noise_multiplier, s.adjacency, s.interval, s.reach);
  };
  for (auto known = bases_.begin(); known != bases_.end(); ++known) {
    if (key(known->shape) != key(shape)) continue;
    bases_.splice(bases_.begin(), bases_, known);
    return bases_.front();
  }
  GaussianLosses losses = losses_of_gaussian(shape);
  Bases made{shape, std::make_shared<LossBase>(std::move(losses.remove)), nullptr};
  if (!losses.add.mass.empty()) made.add = std::make_shared<LossBase>(std::move(losses.add));
  bases_.push_front(made);
  if (bases_.size() > kKeptBases) bases_.pop_back();
  return made;
}

}  // namespace fl
