#pragma once

// The hot loops of noise, included by noise_loops_portable.cpp and noise_loops_avx2.cpp, which differ in compiler flags only.
// Plain pointers on purpose: a std:: template instantiated here with AVX2 flags could be the one that the linker keeps.

#include <cstddef>
#include <cstdint>

namespace fl {

/// Same bits from each build of them.
struct NoiseLoops {
  /// Turns random words into draws in place: an AliasTable's pick_coarse() and the offset in the cell that it picked. `slots` are the
  /// table's; a draw is (cell << offset_bits) + first + the word's lowest offset_bits. Tells whether a cell was 0.
  bool (*cells)(const std::uint32_t* slots, std::uint64_t slot_mask, int offset_bits, std::int64_t first, std::int64_t* words_to_draws, std::size_t count);
  /// to[i] = (round(from[i] · per_unit) + draws[i]) · unit, in double, for |draws[i]| < 2^51. `to` may be `from`.
  void (*add)(const float* from, const std::int64_t* draws, double per_unit, double unit, float* to, std::size_t count);
};
extern const NoiseLoops kPortableNoiseLoops;
#if defined(__x86_64__)
extern const NoiseLoops kAvx2NoiseLoops;
#endif
/// The best ones for this CPU.
const NoiseLoops& noise_loops();
/// For tests: the portable ones from now on (or the best again).
void use_portable_noise_loops(bool portable);

namespace {

[[maybe_unused]] bool cell_loop(const std::uint32_t* __restrict slots, std::uint64_t slot_mask, int offset_bits, std::int64_t first,
                                std::int64_t* __restrict io, std::size_t count) {
  const std::uint64_t offset_mask = (std::uint64_t{1} << offset_bits) - 1;
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const auto word = static_cast<std::uint64_t>(io[i]);
    const std::uint64_t slot = word >> offset_bits & slot_mask;
    const std::uint64_t entry = slots[slot];
    const auto chance = static_cast<std::int64_t>(word >> 48);
    const std::uint64_t moves = std::uint64_t{0} - static_cast<std::uint64_t>(chance >= static_cast<std::int64_t>(entry & 0xffff));
    const std::uint64_t cell = slot ^ (moves & entry >> 16);
    below |= cell - 1;  // the sign bit is set where the cell is 0
    io[i] = first + static_cast<std::int64_t>((cell << offset_bits) + (word & offset_mask));
  }
  return below >> 63 != 0;
}

[[maybe_unused]] void add_loop(const float* from, const std::int64_t* __restrict draws, double per_unit, double unit, float* to, std::size_t count) {
  constexpr double kMagic = 0x1.8p52;  // beside it a double holds integers alone, and its bits count them
  constexpr std::int64_t kMagicBits = 0x4338000000000000;
  for (std::size_t i = 0; i < count; ++i) {
    const double value = static_cast<double>(from[i]) * per_unit;
    // Floats of 24 bits: those from 2^51 on are integers already. Ties to even.
    const double integer = (value + kMagic) - kMagic;
    const double units = __builtin_fabs(value) < 0x1p51 ? integer : value;
    const std::int64_t bits = draws[i] + kMagicBits;
    double draw;
    __builtin_memcpy(&draw, &bits, sizeof draw);
    to[i] = static_cast<float>((units + (draw - kMagic)) * unit);
  }
}

}  // namespace
}  // namespace fl
