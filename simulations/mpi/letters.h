#pragma once

#include <bit>
#include <cstring>
#include <exception>
#include <string>
#include <string_view>

#include "fl_core/base/error.h"
#include "fl_core/ml/model.h"
#include "fl_core/wire/message.h"
#include "simulations/in_process.h"
#include "simulations/mpi/communicator.h"

namespace fl {

/// What a letter is about. Ranks run the same build, so the numbers may change.
enum class Topic : std::uint8_t {
  // Rank 0 to the others:
  begin,     ///< the experiment: load its data
  start,     ///< the run's settings: start workers
  weights,   ///< so many bytes of weights follow by broadcast; tasks refer to the newest
  jobs,      ///< jobs to run
  withdraw,  ///< the jobs of a round need not be answered
  sum,       ///< join the sum of a round's updates
  evaluate,  ///< measure the weights on a part of the test set
  end,       ///< all is over
  // The others to rank 0:
  ready,     ///< data loaded
  answers,   ///< what came of jobs
  summed,    ///< terms and weight of this rank's part of the sum
  measured,  ///< what `evaluate` gave
  failed,    ///< this rank cannot go on, and why
  bye,       ///< the last letter
  // Both ways:
  alive,     ///< nothing else to say
};

/// Writes a letter: numbers of 64 bits, and byte strings with their length.
class LetterWriter {
 public:
  explicit LetterWriter(Topic topic) { number(static_cast<std::uint64_t>(topic)); }
  LetterWriter& number(std::uint64_t value) {
    append(&value, sizeof value);
    return *this;
  }
  LetterWriter& bytes(std::span<const std::byte> value) {
    number(value.size());
    append(value.data(), value.size());
    return *this;
  }
  LetterWriter& text(std::string_view value) { return bytes(std::as_bytes(std::span(value))); }
  LetterWriter& message(const Message& message, bool with_body);
  LetterWriter& result(std::uint64_t ticket, const JobResult& result);
  LetterWriter& evaluation(const Evaluation& sums);
  LetterWriter& error(const std::exception_ptr& error);
  std::size_t size() const { return bytes_.size(); }
  Letter finish() { return std::move(bytes_); }

 private:
  void append(const void* data, std::size_t size) {
    const auto* first = static_cast<const std::byte*>(data);
    bytes_.insert(bytes_.end(), first, first + size);
  }

  Letter bytes_;
};

/// Reads a letter in the order in which it was written. Throws ProtocolError where it ends too early or says something impossible.
class LetterReader {
 public:
  explicit LetterReader(std::span<const std::byte> letter) : rest_(letter), topic_(static_cast<Topic>(number())) {}
  Topic topic() const { return topic_; }
  bool done() const { return rest_.empty(); }
  std::uint64_t number() {
    std::uint64_t value = 0;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::span<const std::byte> bytes() { return take(number()); }
  std::string text() {
    const auto value = bytes();
    return {reinterpret_cast<const char*>(value.data()), value.size()};
  }
  /// `shared`: the body of a message that was written without.
  Message message(const SharedBuffer& shared);
  std::pair<std::uint64_t, JobResult> result();
  Evaluation evaluation();
  /// Never null.
  std::exception_ptr error();

 private:
  std::span<const std::byte> take(std::uint64_t size) {
    if (size > rest_.size()) throw ProtocolError("a letter between ranks ends too early; do all ranks run the same build of fl?");
    const auto taken = rest_.first(size);
    rest_ = rest_.subspan(size);
    return taken;
  }

  std::span<const std::byte> rest_;
  Topic topic_;
};

/// An error of the same class and exit code that says where it happened first: "rank 2 on node7: …".
std::exception_ptr error_with(const std::string& where, const std::exception_ptr& error);

}  // namespace fl
