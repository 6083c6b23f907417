#include "fl_core/params/kernels.h"

#include <atomic>

#include "fl_core/base/error.h"
#include "fl_core/params/kernel_table.h"

namespace fl::kernels {
namespace {

/// The best last.
std::vector<const KernelTable*> tables() {
  std::vector<const KernelTable*> all{&portable_kernels()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&avx2_kernels());
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    all.push_back(&avx512_kernels());
  }
#endif
  return all;
}

std::atomic<const KernelTable*>& current() {
  static std::atomic<const KernelTable*> table = tables().back();
  return table;
}

const KernelTable& table() { return *current().load(std::memory_order_relaxed); }

/// The loops add modulo 2^64 on the unsigned twin of the accumulator's type, which aliasing allows.
std::uint64_t* wrapping(std::span<std::int64_t> sums) { return reinterpret_cast<std::uint64_t*>(sums.data()); }
const std::uint64_t* wrapping(std::span<const std::int64_t> sums) { return reinterpret_cast<const std::uint64_t*>(sums.data()); }

void same_size(std::size_t a, std::size_t b) { FL_CHECK(a == b, "kernel operands differ in length"); }

}  // namespace

void axpy(float a, std::span<const float> x, std::span<float> y) {
  same_size(x.size(), y.size());
  table().axpy(a, x.data(), y.data(), x.size());
}

void scale(float a, std::span<float> x) { table().scale(a, x.data(), x.size()); }

void subtract(std::span<const float> a, std::span<const float> b, std::span<float> out) {
  same_size(a.size(), b.size());
  same_size(a.size(), out.size());
  table().subtract(a.data(), b.data(), out.data(), a.size());
}

double squared_norm(std::span<const float> x) { return table().squared_norm(x.data(), x.size()); }

double squared_distance(std::span<const float> x, std::span<const float> y) {
  same_size(x.size(), y.size());
  return table().squared_distance(x.data(), y.data(), x.size());
}

bool all_finite(std::span<const float> x) { return table().all_finite(x.data(), x.size()); }

void sgd(const SgdStep& step, std::span<float> weights, std::span<const float> gradient, std::span<float> moment) {
  same_size(weights.size(), gradient.size());
  if (step.momentum == 0) {
    table().sgd(step.rate, step.weight_decay, weights.data(), gradient.data(), weights.size());
    return;
  }
  same_size(weights.size(), moment.size());
  table().sgd_momentum(step.rate, step.momentum, 1.0F - step.dampening, step.weight_decay, step.nesterov, weights.data(),
                       gradient.data(), moment.data(), weights.size());
}

bool exact_add(std::span<const float> delta, double scale, float bound, std::span<std::int64_t> accumulator) {
  same_size(delta.size(), accumulator.size());
  return table().exact_add(delta.data(), scale, bound, wrapping(accumulator), delta.size());
}

std::uint32_t exact_add_four(std::span<const float* const, 4> deltas, std::span<const double, 4> scales, float bound, std::span<std::int64_t> accumulator) {
  return table().exact_add_four(deltas.data(), scales.data(), bound, wrapping(accumulator), accumulator.size());
}

void exact_subtract(std::span<const float> delta, double scale, std::span<std::int64_t> accumulator) {
  same_size(delta.size(), accumulator.size());
  table().exact_subtract(delta.data(), scale, wrapping(accumulator), delta.size());
}

void exact_mean(std::span<const std::int64_t> accumulator, double divisor, std::span<float> out) {
  same_size(accumulator.size(), out.size());
  table().exact_mean(wrapping(accumulator), divisor, out.data(), out.size());
}

void to_fp16(std::span<const float> in, std::span<std::uint16_t> out) {
  same_size(in.size(), out.size());
  table().to_fp16(in.data(), out.data(), in.size());
}

void from_fp16(std::span<const std::uint16_t> in, std::span<float> out) {
  same_size(in.size(), out.size());
  table().from_fp16(in.data(), out.data(), in.size());
}

std::vector<std::string_view> instruction_sets() {
  std::vector<std::string_view> names;
  for (const KernelTable* one : tables()) names.emplace_back(one->name);
  return names;
}

std::string_view instruction_set() { return table().name; }

void use_instruction_set(std::string_view name) {
  for (const KernelTable* one : tables()) {
    if (one->name == name) {
      current() = one;
      return;
    }
  }
  FL_CHECK(false, "an instruction set that this processor does not have");
}

}  // namespace fl::kernels
