#include "fl_core/base/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

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

TEST(SharedBuffer, SlicesShareTheBytesAndKeepThemAlive) {
  SharedBuffer slice;
  const std::byte* place = nullptr;
  {
    const std::byte bytes[] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
    const SharedBuffer whole = SharedBuffer::copy_of(bytes);
    place = whole.span().data();
    slice = whole.slice(1, 3).slice(1, 2);
  }
  ASSERT_EQ(slice.size(), 2U);
  EXPECT_EQ(slice.span().data(), place + 2);
  EXPECT_EQ(slice.span()[0], std::byte{3});
  EXPECT_EQ(slice.span()[1], std::byte{4});
}

TEST(SharedBuffer, SlicesMayBeEmptyOrWhole) {
  const SharedBuffer whole{Bytes(8)};
  EXPECT_EQ(whole.slice(0, 8).span().data(), whole.span().data());
  EXPECT_EQ(whole.slice(0, 8).size(), 8U);
  EXPECT_EQ(whole.slice(8, 0).size(), 0U);
  EXPECT_EQ(SharedBuffer().slice(0, 0).size(), 0U);
}

TEST(SharedBuffer, SharesWhatAnotherOwnerHolds) {
  auto owner = std::make_shared<const std::vector<float>>(std::vector<float>{1, 2, 3});
  const std::weak_ptr<const std::vector<float>> watch = owner;
  SharedBuffer buffer(owner, std::as_bytes(std::span(*owner)).subspan(4));
  SharedBuffer copy = buffer;
  EXPECT_EQ(buffer.size(), 8U);
  EXPECT_EQ(static_cast<const void*>(buffer.span().data()), owner->data() + 1);
  owner.reset();
  buffer = SharedBuffer();
  EXPECT_FALSE(watch.expired()) << "a holder is left";
  copy = SharedBuffer();
  EXPECT_TRUE(watch.expired()) << "nobody holds the bytes, so their owner must be gone";
}

}  // namespace
}  // namespace fl
