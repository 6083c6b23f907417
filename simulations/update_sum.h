#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "fl_core/codec/codec.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/wire/message.h"

namespace fl {

/// A part of a round's sum: updates are added where they were made, on the worker's thread, instead of being sent to the engine. As sums
/// are exact, the parts of any number of processes come to the engine's own sum.
///
/// Threads that add at the same time add to sums of their own, as long as all of these together stay within kShareBytes; a model too large for
/// that has one, and its training takes much longer than the addition that others wait for.
class UpdateSum {
 public:
  static constexpr std::size_t kShareBytes = 8U << 20U;

  /// `codec` is borrowed; `max_updates` and `bound_bits` are those of the strategy's sum. Memory: 8 bytes a parameter, and kShareBytes more
  /// at most, no more than `threads` sums in all.
  UpdateSum(const Codec& codec, std::size_t parameters, std::uint64_t max_updates, int bound_bits, std::size_t threads);

  /// Adds an `update` message and returns true; or returns false and has added nothing: it is for the engine to say what is wrong with it.
  /// Any thread.
  bool add(const Message& update);
  /// What was added; valid until the next call of this object. REQUIRES: nobody adds meanwhile.
  const ExactSum& total();
  void clear();

  /// How many threads can add at the same time.
  std::size_t shares() const { return shares_.size(); }

 private:
  /// Made when a thread finds all those before it in use.
  struct Share {
    std::mutex mutex;
    std::optional<ExactSum> sum;
    std::vector<float> decoded;  ///< scratch for codecs whose bytes are no floats
  };

  bool add_to(Share& share, std::span<const std::byte> bytes, std::uint32_t weight) const;
  ExactSum& sum_of(Share& share) const;

  const Codec& codec_;
  std::size_t parameters_;
  std::uint64_t max_updates_;
  int bound_bits_;
  std::vector<Share> shares_;
};

}  // namespace fl
