#include "fl_core/params/layout.h"

#include <limits>
#include <set>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"

namespace fl {

Layout::Layout(std::vector<Slot> slots) : slots_(std::move(slots)) {
  std::set<std::string> names;
  Sha256 hash;
  for (Slot& slot : slots_) {
    FL_CHECK(names.insert(slot.name).second, "two slots named '" + slot.name + "'");
    FL_CHECK(slot.kind == SlotKind::statistic || weight_count_ == size_, "weight slot '" + slot.name + "' after a statistic");
    std::size_t count = 1;
    std::string text = slot.name + (slot.kind == SlotKind::weight ? ":w" : ":s");
    for (const std::int64_t extent : slot.shape) {
      FL_CHECK(extent > 0 && static_cast<std::uint64_t>(extent) <= std::numeric_limits<std::uint32_t>::max() / count,
               "slot '" + slot.name + "' is empty or too large");
      count *= static_cast<std::size_t>(extent);
      text += ":" + std::to_string(extent);
    }
    hash.add(text + "\n");
    slot.offset = size_;
    slot.size = count;
    size_ += count;
    if (slot.kind == SlotKind::weight) weight_count_ = size_;
  }
  const auto digest = hash.finish();
  for (std::size_t i = 0; i < 8; ++i) fingerprint_ = fingerprint_ << 8 | std::to_integer<std::uint64_t>(digest[i]);
}

}  // namespace fl
