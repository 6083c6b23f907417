#include "fl_core/base/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace fl {
namespace {

TEST(AlignedArray, IsZeroedAndStartsOnACacheLine) {
  for (const std::size_t size : {1U, 3U, 16U, 1000U}) {
    const AlignedArray<float> array(size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(array.data()) % kAlignment, 0U);
    EXPECT_EQ(std::count(array.span().begin(), array.span().end(), 0.0F), static_cast<std::ptrdiff_t>(size));
  }
}

TEST(AlignedArray, OfNothingHoldsNothing) {
  const AlignedArray<double> array(0);
  EXPECT_EQ(array.size(), 0U);
  EXPECT_EQ(array.data(), nullptr);
}

TEST(AlignedArray, MovesItsMemoryAndLeavesTheSourceEmpty) {
  AlignedArray<int> source(2);
  source[1] = 7;
  const int* memory = source.data();
  AlignedArray<int> target(std::move(source));
  EXPECT_EQ(target.data(), memory);
  EXPECT_EQ(target[1], 7);
  EXPECT_EQ(source.size(), 0U);
  AlignedArray<int> assigned(5);
  assigned = std::move(target);
  EXPECT_EQ(assigned.data(), memory);
  EXPECT_EQ(assigned.size(), 2U);
  EXPECT_EQ(target.size(), 0U);
}

TEST(AlignedArray, RefusesASizeWhoseBytesOverflow) {
  EXPECT_THROW(AlignedArray<double>(std::numeric_limits<std::size_t>::max() / 8), std::bad_alloc);
  EXPECT_THROW(AlignedArray<double>(std::numeric_limits<std::size_t>::max() / 4), std::bad_alloc);
}

TEST(SharedBuffer, SharesOneCopyOfTheBytes) {
  const std::byte bytes[] = {std::byte{1}, std::byte{2}};
  const SharedBuffer first = SharedBuffer::copy_of(bytes);
  const SharedBuffer second = first;
  EXPECT_EQ(first.span().data(), second.span().data());
  EXPECT_NE(first.span().data(), bytes);
  EXPECT_TRUE(std::ranges::equal(second.span(), bytes));
  EXPECT_EQ(SharedBuffer().size(), 0U);
  EXPECT_TRUE(SharedBuffer::copy_of({}).span().empty());
}

}  // namespace
}  // namespace fl
