#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "client/trainer/local_sgd.h"
#include "fl_core/params/kernels.h"
#include "privacy/noise/grid_gaussian.h"

namespace fl {
namespace {

/// Examples that are held in memory at once, however many a step draws: a batch of 64 expected ones nearly always fits (four
/// standard deviations of their number are at most 32).
constexpr std::size_t kMicrobatch = 96;

struct DpSgdOptions : LearningRate {
  std::int64_t steps = 10;
  std::int64_t batch_size = 10;
  double momentum = 0;
  double weight_decay = 0;

  void fields(Fields& f) {
    f.integer("steps", steps, {1, 1'000'000'000}, "optimizer steps in a round, whatever the client's size; each one costs privacy");
    f.integer("batch_size", batch_size, {1, 1'000'000}, "expected examples in one step, which every noisy sum is divided by, however many were drawn");
    LearningRate::fields(f);
    f.number("momentum", momentum, {0, 0.9999}, "momentum, reset every round");
    f.number("weight_decay", weight_decay, {0, 1e3}, "L2 penalty added to the gradient");
  }
};

/// DP-SGD (Abadi et al. 2016, 1607.00133, algorithm 1): every example is in a step's batch with the same chance, independently;
/// each example's gradient is cut to clip_norm; their sum gets Gaussian noise once and is divided by a constant. What is drawn
/// follows from the job's secret key and from nothing else. Nothing that depends on the examples is reported.
class DpSgd final : public Trainer {
 public:
  explicit DpSgd(const DpSgdOptions& options) : options_(options) {}

  TrainingResult fit(const TrainingJob& job) override;
  std::int64_t examples_for(std::size_t) const override { return options_.steps * options_.batch_size; }
  std::int64_t batch_size() const override { return options_.batch_size; }
  std::uint64_t private_steps() const override { return static_cast<std::uint64_t>(options_.steps); }

 private:
  void draw_batch(const TrainingJob& job, RandomBits& bits);
  std::span<const float> clipped_sum(const TrainingJob& job, Rng& dropout);
  const GridGaussian& noise_of(double stddev);

  DpSgdOptions options_;
  BatchBuffer buffer_;
  std::vector<std::uint32_t> batch_;
  std::vector<float> sum_;
  std::vector<float> moment_;
  std::optional<GridGaussian> noise_;
};

Rng secret_rng(RandomBits& bits) {
  std::array<std::uint32_t, 8> key;
  for (std::size_t i = 0; i < key.size(); i += 2) {
    const std::uint64_t word = bits.next_u64();
    key[i] = static_cast<std::uint32_t>(word);
    key[i + 1] = static_cast<std::uint32_t>(word >> 32);
  }
  return Rng(key);
}

void DpSgd::draw_batch(const TrainingJob& job, RandomBits& bits) {
  // Rounded down: no example is drawn more often than was promised.
  const auto limit = static_cast<std::uint64_t>(job.example_noise->sampling_rate * 0x1p53);
  batch_.clear();
  for (const std::uint32_t example : job.examples) {
    if (bits.next_u64() >> 11 < limit) batch_.push_back(example);
  }
}

/// The sum of the batch's clipped gradients: the model's own where one pass over it was enough, else in sum_.
std::span<const float> DpSgd::clipped_sum(const TrainingJob& job, Rng& dropout) {
  if (batch_.empty()) std::fill(sum_.begin(), sum_.end(), 0.0F);
  // Parts of about one size: a small last one would waste a pass over the weights.
  const std::size_t parts = (batch_.size() + kMicrobatch - 1) / kMicrobatch;
  for (std::size_t part = 0; part < parts; ++part) {
    if (job.should_stop && job.should_stop()) throw Interrupted("training was interrupted");
    const std::size_t start = batch_.size() * part / parts, end = batch_.size() * (part + 1) / parts;
    const Batch batch = buffer_.gather(job.data, std::span<const std::uint32_t>(batch_).subspan(start, end - start));
    job.model.clipped_backward(batch, job.example_noise->clip_norm, dropout);
    const std::span<const float> gradient = job.model.gradient();
    if (parts == 1) return gradient;
    if (part == 0) {
      std::copy(gradient.begin(), gradient.end(), sum_.begin());
    } else {
      kernels::axpy(1.0F, gradient, sum_);
    }
  }
  return sum_;
}

const GridGaussian& DpSgd::noise_of(double stddev) {
  if (!noise_ || noise_->stddev() != stddev) noise_.emplace(stddev, GridGaussian::float_grid(stddev));
  return *noise_;
}

TrainingResult DpSgd::fit(const TrainingJob& job) {
  if (!job.example_noise) throw ConfigError("trainer.name: dp_sgd needs a 'privacy' section whose mechanism is dp_sgd");
  const GridGaussian& noise = noise_of(job.example_noise->noise_multiplier * job.example_noise->clip_norm);
  RandomBits bits(job.example_noise->key);
  Rng dropout = secret_rng(bits);
  const std::span<float> weights = job.model.weights().first(job.model.layout()->weight_count());
  sum_.resize(weights.size());
  if (options_.momentum != 0) moment_.assign(weights.size(), 0.0F);
  const kernels::SgdStep step{static_cast<float>(options_.rate(job.round)), static_cast<float>(options_.momentum), 0.0F,
                              static_cast<float>(options_.weight_decay), false};
  TrainingResult result;
  for (std::int64_t i = 0; i < options_.steps; ++i) {
    if (job.should_stop && job.should_stop()) throw Interrupted("training was interrupted");
    draw_batch(job, bits);
    add_gaussian(noise, bits, clipped_sum(job, dropout), 1.0 / static_cast<double>(options_.batch_size), sum_);
    kernels::sgd(step, weights, sum_, moment_);
    ++result.steps;
  }
  // The weights are a release already, so whether they are finite tells nothing more.
  result.diverged = !kernels::all_finite(weights);
  return result;
}

FL_REGISTER(trainers(), "dp_sgd", DpSgd, DpSgdOptions, "SGD with cut and noised gradients of single examples (DP-SGD, Abadi et al. 2016); needs the privacy mechanism dp_sgd");

}  // namespace
}  // namespace fl
