#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

/// The only hot loops of Tributary outside LibTorch. Every function gives the same bits on every CPU: element-wise loops
/// never contract multiply and add, and reductions run over eight fixed lanes in double, added in a fixed order. The
/// best build of the same source for this processor is picked once, at run time. All spans of one call have the same length.
namespace fl::kernels {

/// y += a * x
void axpy(float a, std::span<const float> x, std::span<float> y);
/// x *= a
void scale(float a, std::span<float> x);
/// out = a - b
void subtract(std::span<const float> a, std::span<const float> b, std::span<float> out);
/// Σ x·x in double.
double squared_norm(std::span<const float> x);
/// Σ (x - y)² in double.
double squared_distance(std::span<const float> x, std::span<const float> y);
/// Whether every element is finite.
bool all_finite(std::span<const float> x);

/// SGD with momentum, weight decay and a proximal term, one pass:
/// g' = g + weight_decay·w ; m = momentum·m + (1 - dampening)·g' ; w -= rate·(nesterov ? g' + momentum·m : m).
struct SgdStep {
  float rate = 0;
  float momentum = 0;
  float dampening = 0;
  float weight_decay = 0;
  bool nesterov = false;
};
/// `moment` may be empty when step.momentum is 0.
void sgd(const SgdStep& step, std::span<float> weights, std::span<const float> gradient, std::span<float> moment);

/// One block of ExactSum::add: accumulator[i] += round(delta[i] * scale). `scale` is weight·2^s, so the product is exact
/// in double and |delta·scale| < 2^51. Returns whether every |delta[i]| < bound (NaN counts as outside).
bool exact_add(std::span<const float> delta, double scale, float bound, std::span<std::int64_t> accumulator);
/// exact_add of four deltas, each with its own scale: the accumulator is read and written once. Returns a bit for each delta
/// (1 << i) that holds a value outside the bound; it was added all the same.
std::uint32_t exact_add_four(std::span<const float* const, 4> deltas, std::span<const double, 4> scales, float bound, std::span<std::int64_t> accumulator);
/// The exact inverse of exact_add.
void exact_subtract(std::span<const float> delta, double scale, std::span<std::int64_t> accumulator);
/// out[i] = (float)((double)accumulator[i] / divisor), each step rounded once.
void exact_mean(std::span<const std::int64_t> accumulator, double divisor, std::span<float> out);

/// IEEE binary16 with round to nearest even; overflow becomes infinity, as the hardware does.
void to_fp16(std::span<const float> in, std::span<std::uint16_t> out);
void from_fp16(std::span<const std::uint16_t> in, std::span<float> out);

/// What this processor can run, the best last: "portable", "avx2", "avx512".
std::vector<std::string_view> instruction_sets();
/// The one in use.
std::string_view instruction_set();
/// For tests: use this one from now on. REQUIRES: it is among instruction_sets().
void use_instruction_set(std::string_view name);

}  // namespace fl::kernels
