#include "client/trainer/local_sgd.h"

#include <algorithm>
#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// Counts a step that was taken; false where its loss has diverged.
bool count_step(double loss, std::size_t examples, TrainingResult& result) {
  if (!std::isfinite(loss) || loss >= 0x1p20) return false;
  ++result.steps;
  result.metrics.examples += static_cast<std::int64_t>(examples);
  result.metrics.loss_units += std::llround(loss * static_cast<double>(examples) / kLossUnit);
  return true;
}

}  // namespace

void LearningRate::fields(Fields& f) {
  f.number("learning_rate", learning_rate, {0, 1e6}, "learning rate of the first round");
  f.choice("schedule", schedule, {"constant", "exponential", "step", "cosine"}, "how the learning rate changes from round to round");
  f.number("decay", decay, {0, 1, true}, "exponential: factor a round; step: factor every decay_every rounds; cosine: final share");
  f.integer("decay_every", decay_every, {1, 1'000'000'000}, "rounds: of one step (step), or of the whole half period (cosine)");
  f.integer("warmup_rounds", warmup_rounds, {0, 1'000'000'000}, "rounds over which the rate grows linearly from learning_rate / (n + 1)");
}

double LearningRate::rate(std::uint32_t round) const {
  const double done = static_cast<double>(round) - 1;
  const auto every = static_cast<double>(decay_every);
  double factor = 1;
  if (schedule == "exponential") factor = std::pow(decay, done);
  if (schedule == "step") factor = std::pow(decay, std::floor(done / every));
  if (schedule == "cosine") factor = decay + (1 - decay) * 0.5 * (1 + std::cos(kPi * std::min(1.0, done / every)));
  if (done < static_cast<double>(warmup_rounds)) factor *= (done + 1) / (static_cast<double>(warmup_rounds) + 1);
  return learning_rate * factor;
}

void LocalSgdOptions::fields(Fields& f) {
  f.integer("epochs", epochs, {1, 100'000}, "passes over the client's examples; ignored when steps is set");
  f.optional_integer("steps", steps, {1, 1'000'000'000}, "optimizer steps in a round, whatever the client's size; null: epochs count");
  f.integer("batch_size", batch_size, {1, 1'000'000}, "examples in one step");
  LearningRate::fields(f);
  f.number("momentum", momentum, {0, 0.9999}, "momentum, reset every round");
  f.flag("nesterov", nesterov, "Nesterov momentum");
  f.number("weight_decay", weight_decay, {0, 1e3}, "L2 penalty added to the gradient");
  f.optional_number("clip_norm", clip_norm, {0, 1e9, true}, "scales a batch's gradient down to this L2 norm");
}

std::int64_t LocalSgd::examples_for(std::size_t shard_size) const {
  const auto size = static_cast<std::int64_t>(shard_size);
  if (!options_.steps) return options_.epochs * size;
  // Whole epochs end with a smaller batch; the remaining steps are full batches.
  const std::int64_t per_epoch = (size + options_.batch_size - 1) / options_.batch_size;
  return *options_.steps / per_epoch * size + *options_.steps % per_epoch * options_.batch_size;
}

kernels::SgdStep LocalSgd::rule_of(std::uint32_t round) const {
  return {static_cast<float>(options_.rate(round)), static_cast<float>(options_.momentum), 0.0F, static_cast<float>(options_.weight_decay), options_.nesterov};
}

bool LocalSgd::step(const TrainingJob& job, std::span<const std::uint32_t> examples, const kernels::SgdStep& rule, Rng& dropout,
                    const GradientHook& correct, TrainingResult& result) {
  const double loss = job.model.backward(batch_.gather(job.data, examples), dropout);
  if (!count_step(loss, examples.size(), result)) return false;
  const std::size_t count = job.model.layout()->weight_count();
  std::span<const float> gradient = job.model.gradient();
  if (correct || options_.clip_norm) {
    gradient_.assign(gradient.begin(), gradient.end());
    if (correct) correct(job, gradient_);
    if (options_.clip_norm) {
      const double norm = std::sqrt(kernels::squared_norm(gradient_));
      if (norm > *options_.clip_norm) kernels::scale(static_cast<float>(*options_.clip_norm / norm), gradient_);
    }
    gradient = gradient_;
  }
  kernels::sgd(rule, job.model.weights().first(count), gradient, moment_);
  return true;
}

/// Shuffles and calls new_order() once an epoch, and step(first, count) for each batch of order_ until it returns false or all is done.
template <class NewOrder, class Step>
void LocalSgd::each_batch(const TrainingJob& job, const NewOrder& new_order, const Step& step) {
  order_.assign(job.examples.begin(), job.examples.end());
  Rng shuffle(job.seed, Purpose::shuffle, job.round, job.client);
  const auto batch = static_cast<std::size_t>(options_.batch_size);
  std::int64_t steps = 0;
  for (std::int64_t epoch = 0; options_.steps || epoch < options_.epochs; ++epoch) {
    shuffle.shuffle(order_);
    new_order();
    for (std::size_t start = 0; start < order_.size(); start += batch) {
      if (job.should_stop && job.should_stop()) throw Interrupted("training was interrupted");
      if (!step(start, std::min(batch, order_.size() - start))) return;
      if (options_.steps && ++steps == *options_.steps) return;
    }
  }
}

TrainingResult LocalSgd::fit(const TrainingJob& job, const GradientHook& correct) {
  if (job.model.resident() != nullptr) {
    FL_CHECK(!correct, "a gradient hook for a model on an accelerator");
    return fit_resident(job);
  }
  TrainingResult result;
  if (options_.momentum != 0) moment_.assign(job.model.layout()->weight_count(), 0.0F);
  const kernels::SgdStep rule = rule_of(job.round);
  Rng dropout(job.seed, Purpose::dropout, job.round, job.client);
  each_batch(job, [] {}, [&](std::size_t first, std::size_t count) {
    result.diverged = !step(job, std::span<const std::uint32_t>(order_).subspan(first, count), rule, dropout, correct, result);
    return !result.diverged;
  });
  return result;
}

TrainingResult LocalSgd::fit_resident(const TrainingJob& job, float pull) {
  ResidentModel& model = *job.model.resident();
  TrainingResult result;
  unsettled_.clear();
  model.begin({rule_of(job.round), options_.clip_norm, pull});
  Rng dropout(job.seed, Purpose::dropout, job.round, job.client);
  each_batch(job, [&] { model.set_order(job.data, order_); }, [&](std::size_t first, std::size_t count) {
    model.step(first, count, dropout);
    unsettled_.push_back(count);
    return unsettled_.size() < ResidentModel::kMostSteps || settle(model, result);
  });
  if (!result.diverged && settle(model, result)) model.finish();
  return result;
}

/// Counts the steps whose losses are read only now, up to the first that has diverged.
bool LocalSgd::settle(ResidentModel& model, TrainingResult& result) {
  const std::vector<float> losses = model.losses();
  for (std::size_t i = 0; i < losses.size() && !result.diverged; ++i) {
    result.diverged = !count_step(static_cast<double>(losses[i]), unsettled_[i], result);
  }
  unsettled_.clear();
  return !result.diverged;
}

}  // namespace fl
