#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/base/buffer.h"
#include "fl_core/base/error.h"
#include "fl_core/optim/optimizer.h"

namespace fl {

/// The options that Adam, Yogi and Adagrad share; each shows those it has under its own defaults.
struct AdaptiveOptions {
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double weight_decay = 0;
  double initial_accumulator = 0;
  bool bias_correction = false;

  void moment_fields(Fields& f) {
    f.number("beta1", beta1, {0, 1}, "share of the old first moment kept in each step; below 1");
    f.number("epsilon", epsilon, {1e-30, 1e6}, "added to the root of the second moment (tau in the FedOpt paper)");
    f.number("weight_decay", weight_decay, {0, 1e6}, "L2 penalty: weight_decay * w is added to the gradient");
    f.number("initial_accumulator", initial_accumulator, {0, 1e6}, "what the second moment starts from");
  }
  void decay_fields(Fields& f) {
    f.number("beta2", beta2, {0, 1}, "how slowly the second moment follows the squared gradient; below 1");
    f.flag("bias_correction", bias_correction, "divide the moments by 1 - beta^t, as Adam does and FedAdam does not");
  }
  /// Throws ConfigError unless both betas are below 1.
  void check(const std::string& path) const {
    for (const auto& [key, beta] : {std::pair("beta1", beta1), std::pair("beta2", beta2)}) {
      if (beta >= 1) throw ConfigError(path + "." + key + ": got 1.0, expected a number from 0 to below 1");
    }
  }
};

/// The optimizers that divide by the root of a second moment, one pass over the weights and both moments:
///   g = gradient + weight_decay·w ;  m = beta1·m + (1 - beta1)·g ;  v = rule(v, g²)
///   w -= rate / (1 - beta1^t) · m / (√v / √(1 - beta2^t) + epsilon)     (both divisors 1 without bias correction)
/// in float, as torch::optim does. Without bias correction and with the gradient -Δ it is the server step of FedOpt
/// (Reddi et al. 2021, Algorithm 2). `Rule` has `Rule(const AdaptiveOptions&)` and `float operator()(float v, float g2)
/// const`. With beta1 = 0 the first moment is the gradient and is not stored.
template <class Rule>
class AdaptiveOptimizer : public Optimizer {
 public:
  explicit AdaptiveOptimizer(const AdaptiveOptions& options) : options_(options), rule_(options) {}

  void step(double learning_rate, std::span<float> weights, std::span<const float> gradient) override {
    if (second_.size() == 0) prepare(weights.size());
    FL_CHECK(weights.size() == second_.size() && gradient.size() == second_.size(), "optimizer: the length changed");
    ++steps_;
    Scales scales;
    scales.epsilon = static_cast<float>(options_.epsilon);
    scales.weight_decay = static_cast<float>(options_.weight_decay);
    scales.rate = static_cast<float>(learning_rate);
    if (options_.bias_correction) {
      const auto t = static_cast<double>(steps_);
      scales.rate = static_cast<float>(learning_rate / (1 - std::pow(options_.beta1, t)));
      scales.root = static_cast<float>(std::sqrt(1 - std::pow(options_.beta2, t)));
    }
    if (options_.beta1 == 0) {
      move(scales, weights.data(), gradient.data(), second_.data(), weights.size(),
           [](std::size_t, float g) { return g; });
    } else {
      const auto keep = static_cast<float>(options_.beta1);
      const auto take = static_cast<float>(1 - options_.beta1);
      float* first = first_.data();
      move(scales, weights.data(), gradient.data(), second_.data(), weights.size(),
           [=](std::size_t i, float g) { return first[i] = keep * first[i] + take * g; });
    }
  }
  void reset() override {
    fill_start();
    steps_ = 0;
  }
  std::vector<std::pair<std::string, std::span<float>>> moments() override {
    std::vector<std::pair<std::string, std::span<float>>> all;
    if (options_.beta1 != 0) all.emplace_back("first_moment", first_.span());
    all.emplace_back("second_moment", second_.span());
    return all;
  }
  void prepare(std::size_t size) override {
    if (second_.size() == size) return;
    if (options_.beta1 != 0) first_ = AlignedArray<float>(size);
    second_ = AlignedArray<float>(size);
    fill_start();
  }
  std::uint64_t steps() const override { return steps_; }
  void set_steps(std::uint64_t steps) override { steps_ = steps; }

 private:
  struct Scales {
    float rate = 0;
    float root = 1;
    float epsilon = 0;
    float weight_decay = 0;
  };

  /// `__restrict`: the four arrays never overlap, which lets the compiler use vectors.
  template <class FirstMoment>
  void move(const Scales scales, float* __restrict w, const float* __restrict gradient, float* __restrict v,
            std::size_t n, FirstMoment first_moment) const {
    const Rule rule = rule_;
    for (std::size_t i = 0; i < n; ++i) {
      const float g = gradient[i] + scales.weight_decay * w[i];
      const float m = first_moment(i, g);
      v[i] = rule(v[i], g * g);
      w[i] -= scales.rate * (m / (std::sqrt(v[i]) / scales.root + scales.epsilon));
    }
  }
  void fill_start() {
    std::fill(first_.span().begin(), first_.span().end(), 0.0F);
    std::fill(second_.span().begin(), second_.span().end(), static_cast<float>(options_.initial_accumulator));
  }

  AdaptiveOptions options_;
  Rule rule_;
  AlignedArray<float> first_;
  AlignedArray<float> second_;
  std::uint64_t steps_ = 0;
};

}  // namespace fl
