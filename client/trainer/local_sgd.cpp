#include "client/trainer/local_sgd.h"

#include <algorithm>
#include <cmath>

#include "fl_core/params/kernels.h"

namespace fl {
namespace {

constexpr double kPi = 3.14159265358979323846;

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

bool LocalSgd::step(const TrainingJob& job, std::span<const std::uint32_t> examples, double rate, Rng& dropout,
                    const GradientHook& correct, TrainingResult& result) {
  const double loss = job.model.backward(batch_.gather(job.data, examples), dropout);
  if (!std::isfinite(loss) || loss >= 0x1p20) return false;
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
  const kernels::SgdStep step{static_cast<float>(rate), static_cast<float>(options_.momentum), 0.0F,
                              static_cast<float>(options_.weight_decay), options_.nesterov};
  kernels::sgd(step, job.model.weights().first(count), gradient, moment_);
  ++result.steps;
  const auto size = static_cast<double>(examples.size());
  result.metrics.examples += static_cast<std::int64_t>(examples.size());
  result.metrics.loss_units += std::llround(loss * size / kLossUnit);
  return true;
}

TrainingResult LocalSgd::fit(const TrainingJob& job, const GradientHook& correct) {
  TrainingResult result;
  if (options_.momentum != 0) moment_.assign(job.model.layout()->weight_count(), 0.0F);
  order_.assign(job.examples.begin(), job.examples.end());
  Rng shuffle(job.seed, Purpose::shuffle, job.round, job.client);
  Rng dropout(job.seed, Purpose::dropout, job.round, job.client);
  const double rate = options_.rate(job.round);
  const auto batch = static_cast<std::size_t>(options_.batch_size);
  for (std::int64_t epoch = 0; options_.steps || epoch < options_.epochs; ++epoch) {
    shuffle.shuffle(order_);
    for (std::size_t start = 0; start < order_.size(); start += batch) {
      if (job.should_stop && job.should_stop()) throw Interrupted("training was interrupted");
      const auto part = std::span<const std::uint32_t>(order_).subspan(start, std::min(batch, order_.size() - start));
      if (!step(job, part, rate, dropout, correct, result)) {
        result.diverged = true;
        return result;
      }
      if (options_.steps && result.steps == static_cast<std::uint64_t>(*options_.steps)) return result;
    }
  }
  return result;
}

}  // namespace fl
