#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace fl {

/// Alignment of every array that a kernel touches, in bytes (one cache line, one AVX-512 register).
inline constexpr std::size_t kAlignment = 64;

/// Memory that begins at a multiple of kAlignment, from malloc's heap; large blocks lie in huge pages where the system gives them: streaming
/// over 4 KiB pages spends a tenth of its time on looking them up. Throws std::bad_alloc. REQUIRES: bytes is a multiple of kAlignment.
void* allocate_aligned(std::size_t bytes);

/// A move-only, 64-byte aligned array of trivially copyable T. Contents start as zero.
template <class T>
class AlignedArray {
 public:
  AlignedArray() = default;
  explicit AlignedArray(std::size_t size) : AlignedArray(uninitialised(size)) {
    if (size != 0) std::memset(static_cast<void*>(data_.get()), 0, size * sizeof(T));
  }
  /// Without the zeros, for whoever writes every element before any is read: large buffers are then touched once.
  static AlignedArray uninitialised(std::size_t size) {
    AlignedArray array;
    if (size == 0) return array;
    if (size > (static_cast<std::size_t>(-1) - kAlignment) / sizeof(T)) throw std::bad_alloc();
    const std::size_t bytes = (size * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    array.data_.reset(static_cast<T*>(allocate_aligned(bytes)));
    array.size_ = size;
    return array;
  }
  AlignedArray(AlignedArray&& other) noexcept
      : data_(std::move(other.data_)), size_(std::exchange(other.size_, 0)) {}
  AlignedArray& operator=(AlignedArray&& other) noexcept {
    data_ = std::move(other.data_);
    size_ = std::exchange(other.size_, 0);
    return *this;
  }

  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  std::size_t size() const { return size_; }
  std::span<T> span() { return {data_.get(), size_}; }
  std::span<const T> span() const { return {data_.get(), size_}; }
  T& operator[](std::size_t i) { return data_.get()[i]; }
  const T& operator[](std::size_t i) const { return data_.get()[i]; }

 private:
  struct Free {
    void operator()(T* memory) const { std::free(memory); }
  };
  std::unique_ptr<T, Free> data_;
  std::size_t size_ = 0;
};

using Bytes = AlignedArray<std::byte>;

/// Immutable bytes that several holders share (the broadcast weights, a received body). Copying copies a pointer.
class SharedBuffer {
 public:
  SharedBuffer() = default;
  explicit SharedBuffer(Bytes bytes) {
    const auto owner = std::make_shared<const Bytes>(std::move(bytes));
    bytes_ = owner->span();
    owner_ = owner;
  }
  /// Bytes that live as long as `owner`; nobody may change them while a holder is left.
  SharedBuffer(std::shared_ptr<const void> owner, std::span<const std::byte> bytes) : owner_(std::move(owner)), bytes_(bytes) {}

  static SharedBuffer copy_of(std::span<const std::byte> source) {
    Bytes bytes = Bytes::uninitialised(source.size());
    if (!source.empty()) std::memcpy(bytes.data(), source.data(), source.size());
    return SharedBuffer(std::move(bytes));
  }

  /// A part of the same bytes. REQUIRES: offset + size <= this->size().
  SharedBuffer slice(std::size_t offset, std::size_t size) const { return {owner_, bytes_.subspan(offset, size)}; }

  std::size_t size() const { return bytes_.size(); }
  std::span<const std::byte> span() const { return bytes_; }

 private:
  std::shared_ptr<const void> owner_;
  std::span<const std::byte> bytes_;
};

}  // namespace fl
