#include "simulations/update_sum.h"

#include <algorithm>

#include "fl_core/base/error.h"

namespace fl {
namespace {

std::size_t share_count(std::size_t parameters, std::size_t threads) {
  const std::size_t fit = UpdateSum::kShareBytes / (sizeof(std::int64_t) * std::max<std::size_t>(1, parameters));
  return std::clamp<std::size_t>(fit, 1, std::max<std::size_t>(1, threads));
}

}  // namespace

UpdateSum::UpdateSum(const Codec& codec, std::size_t parameters, std::uint64_t max_updates, int bound_bits, std::size_t threads)
    : codec_(codec), parameters_(parameters), max_updates_(max_updates), bound_bits_(bound_bits), shares_(share_count(parameters, threads)) {}

bool UpdateSum::add(const Message& update) {
  if (update.type() != MessageType::update) return false;
  const auto bytes = update.body().span();
  if (bytes.size() > codec_.max_bytes(parameters_)) return false;
  try {
    const std::uint32_t weight = parse_update_header(update).weight;
    for (Share& share : shares_) {
      if (const std::unique_lock lock(share.mutex, std::try_to_lock); lock) return add_to(share, bytes, weight);
    }
    const std::lock_guard lock(shares_.front().mutex);
    return add_to(shares_.front(), bytes, weight);
  } catch (const ProtocolError&) {
    return false;
  }
}

ExactSum& UpdateSum::sum_of(Share& share) const {
  if (!share.sum) share.sum.emplace(parameters_, max_updates_, bound_bits_);
  return *share.sum;
}

bool UpdateSum::add_to(Share& share, std::span<const std::byte> bytes, std::uint32_t weight) const {
  std::span<const float> delta = codec_.view(bytes, parameters_);
  if (delta.empty()) {
    share.decoded.resize(parameters_);
    codec_.decode(bytes, share.decoded);
    delta = share.decoded;
  }
  return sum_of(share).add(delta, weight) == ExactSumError::none;
}

const ExactSum& UpdateSum::total() {
  ExactSum& total = sum_of(shares_.front());
  for (std::size_t i = 1; i < shares_.size(); ++i) {
    auto& sum = shares_[i].sum;
    if (!sum || sum->terms() == 0) continue;
    total.merge(*sum);
    sum->clear();
  }
  return total;
}

void UpdateSum::clear() {
  for (Share& share : shares_) {
    const std::lock_guard lock(share.mutex);
    if (share.sum && share.sum->terms() != 0) share.sum->clear();
  }
}

}  // namespace fl
