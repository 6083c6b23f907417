#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

#include "fl_core/codec/codec.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/wire/message.h"

namespace fl {

/// A part of a round's sum: updates are added where they were made, on the worker's thread, instead of being sent to the engine. As sums
/// are exact, the parts of any number of processes come to the engine's own sum.
class UpdateSum {
 public:
  /// `codec` is borrowed; `max_updates` and `bound_bits` are those of the strategy's sum. Memory: 8 bytes a parameter.
  UpdateSum(const Codec& codec, std::size_t parameters, std::uint64_t max_updates, int bound_bits)
      : codec_(codec), sum_(parameters, max_updates, bound_bits) {}

  /// Adds an `update` message and returns true; or returns false and has added nothing: it is for the engine to say what is wrong with it.
  /// Any thread.
  bool add(const Message& update);
  /// What was added. REQUIRES: nobody adds meanwhile.
  const ExactSum& total() const { return sum_; }
  void clear();

 private:
  const Codec& codec_;
  std::mutex mutex_;
  ExactSum sum_;
  std::vector<float> decoded_;  ///< scratch for codecs whose bytes are no floats
};

}  // namespace fl
