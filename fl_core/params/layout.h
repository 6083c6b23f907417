#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace fl {

/// What a slot holds. Optimizers move weights; statistics (BatchNorm running mean and variance) are only averaged.
enum class SlotKind : std::uint8_t { weight = 0, statistic = 1 };

/// One named tensor inside the flat vector: `offset` and `size` count floats.
struct Slot {
  std::string name;
  std::vector<std::int64_t> shape;
  SlotKind kind = SlotKind::weight;
  std::size_t offset = 0;
  std::size_t size = 0;
};

/// How a model's tensors lie in one float[N]: all weights first, then all statistics, without gaps. Immutable.
class Layout {
 public:
  /// Offsets and sizes of `slots` are computed here. REQUIRES: unique names, no statistic before a weight.
  explicit Layout(std::vector<Slot> slots);

  const std::vector<Slot>& slots() const { return slots_; }
  /// N, the number of floats.
  std::size_t size() const { return size_; }
  /// The first weight_count() floats are weights, the rest statistics.
  std::size_t weight_count() const { return weight_count_; }
  /// First 8 bytes of SHA-256 over names, shapes and kinds: what client and server compare before they exchange floats.
  std::uint64_t fingerprint() const { return fingerprint_; }

 private:
  std::vector<Slot> slots_;
  std::size_t size_ = 0;
  std::size_t weight_count_ = 0;
  std::uint64_t fingerprint_ = 0;
};

using SharedLayout = std::shared_ptr<const Layout>;

}  // namespace fl
