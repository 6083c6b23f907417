#include "fl_core/params/sum_code.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "fl_core/base/error.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

__extension__ using Wide = unsigned __int128;

/// The smallest m with terms · largest < 2^(m-1).
unsigned bits_of(std::uint64_t terms, std::uint64_t largest) {
  const Wide most = static_cast<Wide>(terms) * largest;
  const auto high = static_cast<std::uint64_t>(most >> 64);
  const unsigned width = high != 0 ? 64 + static_cast<unsigned>(std::bit_width(high)) : static_cast<unsigned>(std::bit_width(static_cast<std::uint64_t>(most)));
  return width + 1;
}

}  // namespace

SumCode SumCode::grid(std::uint64_t max_terms, int bound_bits, std::uint32_t weight, int coarser) {
  SumCode code(Kind::grid, max_terms, bound_bits, weight, ExactSum::shift_of(max_terms, bound_bits, coarser));
  // |value| <= 2^bound (1 - 2^-24), so value · weight · 2^shift, rounded to the nearest integer, is at most this.
  const double bound = std::ldexp(static_cast<double>(weight == 0 ? ExactSum::kMaxWeight : weight), bound_bits + code.shift_);
  code.largest_ = static_cast<std::int64_t>(std::ceil(bound));
  code.bits_ = bits_of(max_terms, static_cast<std::uint64_t>(code.largest_));
  FL_CHECK(code.bits_ <= 64, "ExactSum's sums fit into an int64");
  return code;
}

SumCode SumCode::rounded(std::uint64_t max_terms, int bound_bits, std::uint32_t weight, unsigned value_bits) {
  FL_CHECK(value_bits >= 8 && value_bits <= 32, "SumCode rounds to 8 to 32 bits");
  const int fine = ExactSum::shift_of(max_terms, bound_bits);
  // The largest weight is below 2^kWeightBits: value · weight · 2^shift is below 2^(value_bits - 1).
  const int shift = static_cast<int>(value_bits) - 1 - bound_bits - ExactSum::kWeightBits;
  FL_CHECK(shift <= fine, "ExactSum's grid is finer than 32 bits");
  SumCode code(Kind::rounded, max_terms, bound_bits, weight, shift);
  code.coarser_ = fine - shift;
  code.largest_ = (std::int64_t{1} << (value_bits - 1)) - 1;
  code.bits_ = bits_of(max_terms, static_cast<std::uint64_t>(code.largest_));
  return code;
}

SumCode SumCode::residues(std::uint64_t max_terms, unsigned bits) {
  FL_CHECK(bits >= 1 && bits <= 24, "a float holds integers of 24 bits");
  SumCode code(Kind::residues, max_terms, 0, ExactSum::kMaxWeight, 0);
  code.largest_ = (std::int64_t{1} << bits) - 1;
  code.bits_ = bits;
  return code;
}

ExactSumError SumCode::encode(std::span<const float> values, std::uint32_t weight, Rng& rng, std::span<std::uint64_t> out) const {
  FL_CHECK(values.size() == out.size(), "SumCode::encode: wrong length");
  FL_CHECK(weight >= 1 && weight <= ExactSum::kMaxWeight && (weight_ == 0 || weight == weight_), "SumCode::encode: wrong weight");
  if (!kernels::all_finite(values)) return ExactSumError::not_finite;
  if (kind_ == Kind::residues) {
    for (std::size_t i = 0; i < values.size(); ++i) {
      const float value = values[i];
      if (!(value >= 0 && value <= static_cast<float>(largest_)) || value != std::floor(value)) return ExactSumError::out_of_bound;
      out[i] = static_cast<std::uint64_t>(value);
    }
    return ExactSumError::none;
  }
  const double scale = std::ldexp(static_cast<double>(weight), shift_);
  const auto bound = static_cast<float>(std::ldexp(1.0, bound_bits_));
  if (kind_ == Kind::grid) {
    // A signed integer and its unsigned twin may share memory.
    const std::span<std::int64_t> integers(reinterpret_cast<std::int64_t*>(out.data()), out.size());
    std::fill(integers.begin(), integers.end(), 0);
    return kernels::exact_add(values, scale, bound, integers) ? ExactSumError::none : ExactSumError::out_of_bound;
  }
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!(std::abs(values[i]) < bound)) return ExactSumError::out_of_bound;
    const double exact = static_cast<double>(values[i]) * scale;
    const double below = std::floor(exact);
    const bool up = static_cast<double>(rng.next_u32()) * 0x1p-32 < exact - below;
    const auto integer = static_cast<std::int64_t>(below) + (up ? 1 : 0);
    out[i] = static_cast<std::uint64_t>(std::clamp(integer, -largest_, largest_));
  }
  return ExactSumError::none;
}

void SumCode::decode(std::span<const std::uint64_t> sum, std::span<std::int64_t> out) const {
  FL_CHECK(sum.size() == out.size(), "SumCode::decode: wrong length");
  const unsigned unused = 64 - bits_;
  for (std::size_t i = 0; i < sum.size(); ++i) {
    if (kind_ == Kind::residues) {
      out[i] = static_cast<std::int64_t>((sum[i] << unused) >> unused);
    } else {
      // Moves the sign bit to the top and back, which extends it.
      const std::int64_t integer = static_cast<std::int64_t>(sum[i] << unused) >> unused;
      out[i] = static_cast<std::int64_t>(static_cast<std::uint64_t>(integer) << coarser_);
    }
  }
}

}  // namespace fl
