#include "simulations/update_sum.h"

#include "fl_core/base/error.h"

namespace fl {

bool UpdateSum::add(const Message& update) {
  if (update.type() != MessageType::update) return false;
  const auto bytes = update.body().span();
  if (bytes.size() > codec_.max_bytes(sum_.size())) return false;
  try {
    const std::uint32_t weight = parse_update_header(update).weight;
    const std::lock_guard lock(mutex_);
    std::span<const float> delta = codec_.view(bytes, sum_.size());
    if (delta.empty()) {
      decoded_.resize(sum_.size());
      codec_.decode(bytes, decoded_);
      delta = decoded_;
    }
    return sum_.add(delta, weight) == ExactSumError::none;
  } catch (const ProtocolError&) {
    return false;
  }
}

void UpdateSum::clear() {
  const std::lock_guard lock(mutex_);
  sum_.clear();
}

}  // namespace fl
