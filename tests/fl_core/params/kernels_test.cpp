#include "fl_core/params/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "tests/fl_core/params/random_values.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::random_values;
using testing::ElementsAre;

/// Lengths around every vector width, and offsets that leave no span aligned. Exponents below 2^20 keep every result
/// finite, so that equal bits is a fair question.
constexpr std::size_t kLengths[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 1000};
constexpr std::size_t kOffsets[] = {0, 1, 2, 3, 5};

struct Inputs {
  std::span<const float> x;
  std::span<const float> y;
  std::span<const float> z;
};

template <class T>
std::vector<std::uint64_t> bits_of(const std::vector<T>& values) {
  std::vector<std::uint64_t> bits;
  for (const T value : values) {
    std::uint64_t one = 0;
    std::memcpy(&one, &value, sizeof(value));
    bits.push_back(one);
  }
  return bits;
}

/// Runs `kernel` (Inputs -> vector) on every instruction set over all lengths and offsets and compares bits.
template <class Kernel>
void expect_equal_bits(Kernel kernel) {
  const auto x = random_values(1010, 20, 1);
  const auto y = random_values(1010, 20, 2);
  const auto z = random_values(1010, 20, 3);
  for (const std::size_t length : kLengths) {
    for (const std::size_t offset : kOffsets) {
      const Inputs inputs = {std::span(x).subspan(offset, length), std::span(y).subspan(offset, length),
                             std::span(z).subspan(offset, length)};
      std::vector<std::uint64_t> portable;
      for (const std::string_view set : kernels::instruction_sets()) {
        kernels::use_instruction_set(set);
        const auto bits = bits_of(kernel(inputs, offset));
        if (set == "portable") portable = bits;
        ASSERT_EQ(bits, portable) << set << ", length " << length << ", offset " << offset;
      }
    }
  }
}

/// A copy of `values` that starts `offset` elements after an allocation, so that outputs are unaligned as well.
struct Shifted {
  Shifted(std::span<const float> values, std::size_t offset) : memory(offset), offset_(offset) {
    memory.insert(memory.end(), values.begin(), values.end());
  }
  std::span<float> span() { return std::span(memory).subspan(offset_); }
  std::vector<float> memory;

 private:
  std::size_t offset_;
};

TEST(KernelBits, AreTheSameForAxpyScaleAndSubtract) {
  expect_equal_bits([](const Inputs& in, std::size_t offset) {
    Shifted out(in.y, offset);
    kernels::axpy(0.37F, in.x, out.span());
    kernels::scale(1.7F, out.span());
    kernels::subtract(out.span(), in.z, out.span());
    return out.memory;
  });
}

TEST(KernelBits, AreTheSameForReductions) {
  expect_equal_bits([](const Inputs& in, std::size_t) {
    return std::vector<double>{kernels::squared_norm(in.x), kernels::squared_distance(in.x, in.y),
                               kernels::all_finite(in.x) ? 1.0 : 0.0};
  });
}

TEST(KernelBits, AreTheSameForSgd) {
  for (const float momentum : {0.0F, 0.9F}) {
    for (const float weight_decay : {0.0F, 0.01F}) {
      for (const bool nesterov : {false, true}) {
        expect_equal_bits([&](const Inputs& in, std::size_t offset) {
          Shifted weights(in.x, offset);
          Shifted moment(in.z, offset);
          kernels::sgd({0.1F, momentum, nesterov ? 0.0F : 0.2F, weight_decay, nesterov}, weights.span(), in.y,
                       moment.span());
          weights.memory.insert(weights.memory.end(), moment.memory.begin(), moment.memory.end());
          return weights.memory;
        });
      }
    }
  }
}

TEST(KernelBits, AreTheSameForExactAddAndSubtract) {
  expect_equal_bits([](const Inputs& in, std::size_t offset) {
    std::vector<std::int64_t> sums(offset + in.x.size(), 12345);
    const auto span = std::span(sums).subspan(offset);
    EXPECT_TRUE(kernels::exact_add(in.x, 599.0 * 0x1p5, 0x1p20F, span));
    kernels::exact_subtract(in.y, 7.0 * 0x1p5, span);
    return sums;
  });
}

TEST(KernelBits, AreTheSameForExactAddOfFour) {
  expect_equal_bits([](const Inputs& in, std::size_t offset) {
    std::vector<std::int64_t> sums(offset + in.x.size(), -12345);
    std::vector<std::int64_t> expected = sums;
    const std::array<double, 4> scales = {599.0 * 0x1p5, 0x1p5, 65535.0 * 0x1p5, 7.0 * 0x1p5};
    const std::array<const float*, 4> deltas = {in.x.data(), in.y.data(), in.z.data(), in.x.data()};
    EXPECT_EQ(kernels::exact_add_four(deltas, scales, 0x1p20F, std::span(sums).subspan(offset)), 0U);
    for (std::size_t k = 0; k < 4; ++k) kernels::exact_add({deltas[k], in.x.size()}, scales[k], 0x1p20F, std::span(expected).subspan(offset));
    EXPECT_EQ(sums, expected);
    return sums;
  });
}

TEST(Kernels, SayWhichOfFourIsOutsideTheBound) {
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    for (std::uint32_t bad = 0; bad < 16; ++bad) {
      std::array<std::vector<float>, 4> deltas;
      std::array<const float*, 4> places{};
      for (std::size_t k = 0; k < 4; ++k) {
        deltas[k].assign(37, -63.9F);
        if ((bad >> k & 1U) != 0) deltas[k][9 * k + 2] = k % 2 == 0 ? -64.0F : std::nanf("");
        places[k] = deltas[k].data();
      }
      std::vector<std::int64_t> sums(37);
      EXPECT_EQ(kernels::exact_add_four(places, std::array<double, 4>{1, 1, 1, 1}, 64.0F, sums), bad) << set;
    }
  }
}

TEST(Kernels, RoundSumsToDoublesOnce) {
  Rng rng(1, Purpose::synthetic_data);
  std::vector<std::int64_t> sums = {0, 1, -1, (1LL << 53) + 1, -(1LL << 53) - 1, (1LL << 62) + 129, INT64_MAX, INT64_MIN, 0xffffffff, -0x100000000, 0x7fffffff80000001};
  while (sums.size() < 1003) {
    const std::uint64_t bits = std::uint64_t{rng.next_u32()} << 32 | rng.next_u32();
    sums.push_back(static_cast<std::int64_t>(bits) >> rng.next_u32() % 64);
  }
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    for (const double divisor : {1.0, 0x1p-3, 599.0 * 0x1p30}) {
      std::vector<float> out(sums.size());
      kernels::exact_mean(sums, divisor, out);
      for (std::size_t i = 0; i < sums.size(); ++i) ASSERT_EQ(out[i], static_cast<float>(static_cast<double>(sums[i]) / divisor)) << set << " " << sums[i];
    }
  }
}

TEST(KernelBits, AreTheSameForHalfPrecision) {
  expect_equal_bits([](const Inputs& in, std::size_t offset) {
    std::vector<std::uint16_t> halves(offset + in.x.size());
    kernels::to_fp16(in.x, std::span(halves).subspan(offset));
    Shifted out(in.y, offset);
    kernels::from_fp16(std::span(halves).subspan(offset), out.span());
    for (const std::uint16_t half : halves) out.memory.push_back(half);
    return out.memory;
  });
}

TEST(Kernels, RoundTheProductBeforeTheSum) {
  // (1 + 2^-12)² = 1 + 2^-11 + 2^-24; as a float the last bit is lost, and only a fused multiply-add would still see
  // it.
  const float x = 1 + 0x1p-12F;
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    std::vector<float> y(9, -(1 + 0x1p-11F));
    kernels::axpy(x, std::vector<float>(9, x), y);
    EXPECT_THAT(y, testing::Each(0.0F)) << kernels::instruction_set();
  }
}

TEST(Kernels, ComputeWhatTheirNamesSay) {
  std::vector<float> y = {10, 20, 30};
  kernels::axpy(2, std::vector<float>{1, 2, 3}, y);
  EXPECT_THAT(y, ElementsAre(12, 24, 36));
  kernels::scale(0.5F, y);
  EXPECT_THAT(y, ElementsAre(6, 12, 18));
  kernels::subtract(y, std::vector<float>{1, 2, 3}, y);
  EXPECT_THAT(y, ElementsAre(5, 10, 15));
  EXPECT_EQ(kernels::squared_norm(y), 350);
  EXPECT_EQ(kernels::squared_distance(y, std::vector<float>{2, 6, 15}), 25);
}

TEST(Kernels, ReduceOverEightLanesInAFixedOrder) {
  // Values of like size, so that another order of the additions rounds differently for some of the lengths.
  Rng rng(1, Purpose::synthetic_data);
  std::vector<float> x;
  for (std::size_t length = 1; length <= 1000; ++length) {
    x.push_back(static_cast<float>(rng.normal()));
    double lanes[8] = {};
    for (std::size_t i = 0; i < length; ++i) lanes[i % 8] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    const double expected =
        ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    ASSERT_EQ(kernels::squared_norm(x), expected) << "length " << length;
    ASSERT_EQ(kernels::squared_distance(x, std::vector<float>(length)), expected) << "length " << length;
  }
}

TEST(Kernels, FindEveryValueThatIsNotFinite) {
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    std::vector<float> values = random_values(67, 127, 5);
    values[3] = std::numeric_limits<float>::max();
    values[4] = std::numeric_limits<float>::denorm_min();
    EXPECT_TRUE(kernels::all_finite(values));
    for (std::size_t place = 0; place < values.size(); ++place) {
      for (const std::uint32_t bad : {0x7f800000U, 0xff800000U, 0x7fc00000U, 0x7f800001U, 0xffffffffU}) {
        auto copy = values;
        copy[place] = std::bit_cast<float>(bad);
        ASSERT_FALSE(kernels::all_finite(copy)) << std::hex << bad << " at " << std::dec << place;
      }
    }
  }
}

TEST(Kernels, RefuseOperandsOfUnlikeLength) {
  std::vector<float> two(2);
  const std::vector<float> three(3);
  EXPECT_THAT(test::error_of([&] { kernels::axpy(1, three, two); }), testing::HasSubstr("differ in length"));
  EXPECT_THAT(test::error_of([&] {
                kernels::sgd({0.1F, 0.9F}, two, two, {});
              }),
              testing::HasSubstr("differ in length"));
}

/// The value of an IEEE binary16 by its definition: 1 sign, 5 exponent and 10 fraction bits.
double value_of_half(std::uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int fraction = half & 1023;
  double value = exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
  if (exponent == 31) value = fraction == 0 ? HUGE_VAL : std::nan("");
  return (half & 0x8000) != 0 ? -value : value;
}

std::uint16_t to_half(float value) {
  std::uint16_t half = 0;
  kernels::to_fp16({&value, 1}, {&half, 1});
  return half;
}

std::vector<std::uint16_t> every_half() {
  std::vector<std::uint16_t> all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  return all;
}

TEST(HalfPrecision, DecodesAll65536Values) {
  const auto halves = every_half();
  std::vector<float> floats(halves.size());
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    kernels::from_fp16(halves, floats);
    for (const std::uint16_t half : halves) {
      const double expected = value_of_half(half);
      const auto got = static_cast<double>(floats[half]);
      ASSERT_TRUE(std::isnan(expected) ? std::isnan(got) : got == expected) << "half " << half << " gave " << got;
      ASSERT_EQ(std::signbit(floats[half]), (half & 0x8000) != 0) << "half " << half;
    }
  }
}

TEST(HalfPrecision, EncodesEveryDecodedValueToItself) {
  const auto halves = every_half();
  std::vector<float> floats(halves.size());
  std::vector<std::uint16_t> again(halves.size());
  kernels::from_fp16(halves, floats);
  for (const std::string_view set : kernels::instruction_sets()) {
    kernels::use_instruction_set(set);
    kernels::to_fp16(floats, again);
    for (const std::uint16_t half : halves) {
      // NaN keeps its sign and becomes the quiet one.
      const int expected = (half & 0x7fff) > 0x7c00 ? (half & 0x8000) | 0x7e00 : half;
      ASSERT_EQ(again[half], expected) << "half " << half;
    }
  }
}

TEST(HalfPrecision, RoundsToTheNearestAndTiesToEven) {
  // Between two neighbours a < b: the middle goes to the one whose last bit is 0, one float to either side goes there.
  // The neighbour of 65504, the largest finite half, counts as 65536 and is infinity.
  for (int low = 0; low < 0x7c00; ++low) {
    const int high = low + 1;
    const double above = high == 0x7c00 ? 65536.0 : value_of_half(static_cast<std::uint16_t>(high));
    const auto middle = static_cast<float>((value_of_half(static_cast<std::uint16_t>(low)) + above) / 2);
    ASSERT_EQ(to_half(middle), low % 2 == 0 ? low : high) << middle;
    ASSERT_EQ(to_half(std::nextafter(middle, 0.0F)), low) << middle;
    ASSERT_EQ(to_half(std::nextafter(middle, 1e6F)), high) << middle;
    ASSERT_EQ(to_half(-middle), (low % 2 == 0 ? low : high) | 0x8000) << middle;
  }
}

TEST(HalfPrecision, RoundsRandomFloatsByTheDefinition) {
  // The spacing of halves at 2^e is 2^(e - 10), but never below 2^-24.
  for (const float value : random_values(50'000, 16, 6)) {
    const int exponent = value == 0 ? -14 : std::max(std::ilogb(value), -14);
    const double spacing = std::ldexp(1.0, exponent - 10);
    const double expected = std::nearbyint(static_cast<double>(value) / spacing) * spacing;
    const double got = value_of_half(to_half(value));
    ASSERT_EQ(got, std::abs(expected) >= 65536 ? std::copysign(HUGE_VAL, expected) : expected) << value;
  }
}

TEST(HalfPrecision, OverflowsToInfinity) {
  EXPECT_EQ(to_half(65519.996F), 0x7bff);
  EXPECT_EQ(to_half(65520.0F), 0x7c00);
  EXPECT_EQ(to_half(-1e30F), 0xfc00);
  EXPECT_EQ(to_half(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(to_half(std::numeric_limits<float>::denorm_min()), 0);
  EXPECT_EQ(to_half(-0.0F), 0x8000);
}

}  // namespace
}  // namespace fl
