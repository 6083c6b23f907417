#pragma once

#include <span>
#include <utility>

#include "fl_core/base/buffer.h"
#include "fl_core/params/layout.h"

namespace fl {

/// A model's weights, a delta, or an optimizer moment: float[N], 64-byte aligned, with the layout that names its parts.
/// Move-only, so that a copy of a model is always visible in the code (clone).
class ParameterVector {
 public:
  ParameterVector() = default;
  /// All zeros.
  explicit ParameterVector(SharedLayout layout) : layout_(std::move(layout)), values_(layout_->size()) {}

  const SharedLayout& layout() const { return layout_; }
  std::size_t size() const { return values_.size(); }
  std::span<float> values() { return values_.span(); }
  std::span<const float> values() const { return values_.span(); }
  std::span<const float> slot(const Slot& slot) const { return values().subspan(slot.offset, slot.size); }
  std::span<const std::byte> bytes() const { return std::as_bytes(values()); }

  ParameterVector clone() const {
    ParameterVector copy(layout_);
    if (size() != 0) std::memcpy(copy.values_.data(), values_.data(), size() * sizeof(float));
    return copy;
  }

 private:
  SharedLayout layout_;
  AlignedArray<float> values_;
};

}  // namespace fl
