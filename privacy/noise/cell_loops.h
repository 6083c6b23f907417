#pragma once

// The hot loop of CellSampler, included by cell_loops_portable.cpp and cell_loops_avx2.cpp, which differ in compiler flags only.
// Plain pointers on purpose: a std:: template instantiated here with AVX2 flags could be the one that the linker keeps.

#include <cstddef>
#include <cstdint>

namespace fl {

/// Turns random words into draws: an AliasTable's pick_coarse() and the offset in the cell that it picked.
/// `slots` are the table's; a draw is (cell << offset_bits) + first + the word's lowest offset_bits. Tells whether a cell was 0.
/// Same bits from each.
using CellLoop = bool (*)(const std::uint32_t* slots, std::uint64_t slot_mask, int offset_bits, std::int64_t first,
                          const std::uint64_t* words, std::int64_t* out, std::size_t count);
bool cell_loop_portable(const std::uint32_t*, std::uint64_t, int, std::int64_t, const std::uint64_t*, std::int64_t*, std::size_t);
#if defined(__x86_64__)
bool cell_loop_avx2(const std::uint32_t*, std::uint64_t, int, std::int64_t, const std::uint64_t*, std::int64_t*, std::size_t);
#endif

namespace {

[[maybe_unused]] inline bool cell_loop(const std::uint32_t* __restrict slots, std::uint64_t slot_mask, int offset_bits, std::int64_t first,
                      const std::uint64_t* __restrict words, std::int64_t* __restrict out,
                                      std::size_t count) {
  const std::uint64_t offset_mask = (std::uint64_t{1} << offset_bits) - 1;
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint64_t word = words[i];
    const std::uint64_t slot = word >> offset_bits & slot_mask;
    const std::uint64_t entry = slots[slot];
    const auto chance = static_cast<std::int64_t>(word >> 48);
    const std::uint64_t moves = std::uint64_t{0} - static_cast<std::uint64_t>(chance >= static_cast<std::int64_t>(entry & 0xffff));
    const std::uint64_t cell = slot ^ (moves & entry >> 16);
    below |= cell - 1;  // the sign bit is set where the cell is 0
    out[i] = first + static_cast<std::int64_t>((cell << offset_bits) + (word & offset_mask));
  }
  return below >> 63 != 0;
}

}  // namespace
}  // namespace fl
