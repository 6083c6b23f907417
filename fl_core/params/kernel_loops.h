#pragma once

// The bodies of the kernels, included by kernels_portable.cpp, kernels_avx2.cpp and kernels_avx512.cpp, which differ in
// compiler flags only. Plain pointers on purpose: a std:: template instantiated here with AVX flags could be the one that
// the linker keeps.

#include <cstddef>
#include <cstdint>

#include "fl_core/params/kernel_table.h"

namespace fl::kernels {
namespace {

/// 1.5·2^52: adding it to |x| < 2^51 leaves round-to-nearest-even(x) in the low mantissa bits.
constexpr double kMagic = 6755399441055744.0;
constexpr std::uint64_t kMagicBits = 0x4338000000000000;
constexpr std::size_t kLanes = 8;

/// Unsigned, because undoing a block that held NaN subtracts arbitrary bits again and must wrap, not overflow.
inline std::uint64_t bits_of(double value) { return __builtin_bit_cast(std::uint64_t, value); }
inline std::uint32_t bits_of(float value) { return __builtin_bit_cast(std::uint32_t, value); }
inline float float_of(std::uint32_t bits) { return __builtin_bit_cast(float, bits); }

void axpy_loop(float a, const float* __restrict x, float* __restrict y, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] += a * x[i];
}

void scale_loop(float a, float* x, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) x[i] *= a;
}

void subtract_loop(const float* a, const float* b, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = a[i] - b[i];
}

double sum_lanes(const double* lanes) {
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

double squared_distance_loop(const float* x, const float* y, std::size_t n) {
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) {
      const double d = static_cast<double>(x[i + k]) - static_cast<double>(y[i + k]);
      lanes[k] += d * d;
    }
  }
  for (std::size_t k = 0; i < n; ++i, ++k) {
    const double d = static_cast<double>(x[i]) - static_cast<double>(y[i]);
    lanes[k] += d * d;
  }
  return sum_lanes(lanes);
}

double squared_norm_loop(const float* x, std::size_t n) {
  double lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
  }
  for (std::size_t k = 0; i < n; ++i, ++k) lanes[k] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum_lanes(lanes);
}

bool all_finite_loop(const float* x, std::size_t n) {
  std::uint32_t bad = 0;
  for (std::size_t i = 0; i < n; ++i) bad |= (bits_of(x[i]) & 0x7f800000U) == 0x7f800000U ? 1U : 0U;
  return bad == 0;
}

void sgd_loop(float rate, float weight_decay, float* __restrict w, const float* __restrict g, std::size_t n) {
  if (weight_decay == 0) {
    for (std::size_t i = 0; i < n; ++i) w[i] -= rate * g[i];
  } else {
    for (std::size_t i = 0; i < n; ++i) w[i] -= rate * (g[i] + weight_decay * w[i]);
  }
}

void sgd_momentum_loop(float rate, float momentum, float keep, float weight_decay, bool nesterov, float* __restrict w,
                       const float* __restrict g, float* __restrict m, std::size_t n) {
  const float look_ahead = nesterov ? momentum : 0.0F;
  if (nesterov) {
    for (std::size_t i = 0; i < n; ++i) {
      const float full = g[i] + weight_decay * w[i];
      m[i] = momentum * m[i] + keep * full;
      w[i] -= rate * (full + look_ahead * m[i]);
    }
  } else {
    for (std::size_t i = 0; i < n; ++i) {
      m[i] = momentum * m[i] + keep * (g[i] + weight_decay * w[i]);
      w[i] -= rate * m[i];
    }
  }
}

/// round(value · scale) as the difference to kMagicBits in the low bits of a double. The product is exact, so fusing it with
/// the addition changes nothing.
inline std::uint64_t unit_bits(float value, double scale) {
#if defined(__FMA__)
  return bits_of(__builtin_fma(static_cast<double>(value), scale, kMagic));
#else
  return bits_of(static_cast<double>(value) * scale + kMagic);
#endif
}

/// Positive floats order like their bit patterns, NaN and infinity above all: one integer compare finds every bad value.
inline std::int32_t is_outside(float value, std::int32_t limit) {
  return static_cast<std::int32_t>(bits_of(value) & 0x7fffffffU) >= limit ? 1 : 0;
}

bool exact_add_loop(const float* __restrict delta, double scale, float bound, std::uint64_t* __restrict sum, std::size_t n) {
  const auto limit = static_cast<std::int32_t>(bits_of(bound));
  std::int32_t outside = 0;
  for (std::size_t i = 0; i < n; ++i) {
    outside |= is_outside(delta[i], limit);
    sum[i] += unit_bits(delta[i], scale) - kMagicBits;
  }
  return outside == 0;
}

std::uint32_t exact_add_four_loop(const float* const* deltas, const double* scales, float bound, std::uint64_t* __restrict sum, std::size_t n) {
  const auto limit = static_cast<std::int32_t>(bits_of(bound));
  const float* const d0 = deltas[0];
  const float* const d1 = deltas[1];
  const float* const d2 = deltas[2];
  const float* const d3 = deltas[3];
  const double s0 = scales[0], s1 = scales[1], s2 = scales[2], s3 = scales[3];
  std::int32_t o0 = 0, o1 = 0, o2 = 0, o3 = 0;
  for (std::size_t i = 0; i < n; ++i) {
    o0 |= is_outside(d0[i], limit);
    o1 |= is_outside(d1[i], limit);
    o2 |= is_outside(d2[i], limit);
    o3 |= is_outside(d3[i], limit);
    sum[i] += ((unit_bits(d0[i], s0) + unit_bits(d1[i], s1)) + (unit_bits(d2[i], s2) + unit_bits(d3[i], s3))) - 4 * kMagicBits;
  }
  return static_cast<std::uint32_t>(o0 | o1 << 1 | o2 << 2 | o3 << 3);
}

void exact_subtract_loop(const float* __restrict delta, double scale, std::uint64_t* __restrict sum, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) sum[i] -= unit_bits(delta[i], scale) - kMagicBits;
}

/// (double)(std::int64_t)sum, rounded once, by arithmetic that every instruction set can do in vectors: the upper half as a
/// multiple of 2^32 beside 2^84, the lower one beside 2^52; both differences are exact.
inline double double_of(std::uint64_t sum) {
  constexpr std::uint64_t kUpper = 0x4530000000000000;  // 2^84
  constexpr std::uint64_t kLower = 0x4330000000000000;  // 2^52
  constexpr double kBoth = 0x1p84 + 0x1p63 + 0x1p52;
  const double upper = __builtin_bit_cast(double, (sum >> 32 ^ 0x80000000U) | kUpper);
  const double lower = __builtin_bit_cast(double, (sum & 0xffffffffU) | kLower);
  return (upper - kBoth) + lower;
}

void exact_mean_loop(const std::uint64_t* __restrict sum, double divisor, float* __restrict out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<float>(double_of(sum[i]) / divisor);
}

/// `yes` where the condition holds, else `no`. By masks: branches would keep the fp16 loops from being vectorised.
inline std::uint32_t pick(bool condition, std::uint32_t yes, std::uint32_t no) {
  const std::uint32_t mask = 0U - static_cast<std::uint32_t>(condition);
  return (yes & mask) | (no & ~mask);
}

/// Bit arithmetic instead of F16C, so that both builds and every architecture agree, NaN included.
void to_fp16_loop(const float* in, std::uint16_t* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t bits = bits_of(in[i]);
    const std::uint32_t sign = bits >> 16 & 0x8000U;
    const std::uint32_t magnitude = bits & 0x7fffffffU;
    // Normal: re-bias the exponent (127 - 15 = 112), add the rounding half with ties to even, drop 13 bits.
    const std::uint32_t normal = (magnitude - (112U << 23) + 0xfffU + (magnitude >> 13 & 1U)) >> 13;
    // Subnormal: adding 0.5 lets the FPU align and round the mantissa to multiples of 2^-24.
    const std::uint32_t subnormal = bits_of(float_of(magnitude) + 0.5F) - bits_of(0.5F);
    const std::uint32_t special = pick(magnitude > 0x7f800000U, 0x7e00U, 0x7c00U);
    std::uint32_t half = pick(magnitude < (113U << 23), subnormal, normal);
    half = pick(magnitude >= (143U << 23), special, half);
    out[i] = static_cast<std::uint16_t>(sign | half);
  }
}

void from_fp16_loop(const std::uint16_t* in, float* out, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) {
    const std::uint32_t half = in[i];
    const std::uint32_t sign = (half & 0x8000U) << 16;
    const std::uint32_t magnitude = half & 0x7fffU;
    const std::uint32_t normal = (magnitude << 13) + (112U << 23);
    const std::uint32_t special = normal + (112U << 23);
    const std::uint32_t subnormal = bits_of(float_of((magnitude << 13) + (113U << 23)) - float_of(113U << 23));
    std::uint32_t bits = pick(magnitude < 0x400U, subnormal, normal);
    bits = pick(magnitude >= 0x7c00U, special, bits);
    out[i] = float_of(sign | bits);
  }
}

constexpr KernelTable table_of(const char* name) {
  return {name,     axpy_loop,         scale_loop,     subtract_loop,       squared_norm_loop,   squared_distance_loop, all_finite_loop, sgd_loop,
          sgd_momentum_loop, exact_add_loop, exact_add_four_loop, exact_subtract_loop, exact_mean_loop, to_fp16_loop,    from_fp16_loop};
}

}  // namespace
}  // namespace fl::kernels
