#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/error.h"

namespace fl {

/// What one rank sends to another: bytes that only letters.h can read.
using Letter = std::vector<std::byte>;

/// Another rank, or the way to it, is gone.
class RankLost : public IoError {
 public:
  using IoError::IoError;
};

/// What a group of processes needs of MPI, and no more, so that tests can do without. Rank 0 leads. One thread at a time; no call blocks for long
/// without asking `give_up` (from time to time, at least every few milliseconds).
///
/// Contract: letters from one rank to another arrive whole and in their order. broadcast() and sum() are collective: all ranks call them in the
/// same order with the same sizes. Throws RankLost where the network refuses, when nothing moves for a minute, and when give_up says so.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual std::size_t rank() const = 0;
  virtual std::size_t size() const = 0;
  /// The machine's name.
  virtual std::string host() const = 0;

  /// Sends a letter; returns at once.
  virtual void post(std::size_t to, Letter letter) = 0;
  struct Received {
    std::size_t from = 0;
    Letter letter;
  };
  /// The next letter that is here, if any; also moves what was posted along.
  virtual std::optional<Received> poll() = 0;
  /// Whether something that was posted is not on its way yet. It goes in pieces, each with a poll() here and there: do not let it wait.
  virtual bool sending() const = 0;
  /// Waits until all that was posted is on its way.
  virtual void flush() = 0;

  /// Gives every rank rank 0's bytes.
  virtual void broadcast(std::span<std::byte> bytes) = 0;
  /// total[i] = Σ mine[i] over all ranks, at rank 0 only: elsewhere `total` is empty.
  virtual void sum(std::span<const std::int64_t> mine, std::span<std::int64_t> total) = 0;

  /// Asked while a call waits for other ranks: true ends the wait with RankLost.
  void set_give_up(std::function<bool()> give_up) { give_up_ = std::move(give_up); }

 protected:
  bool gives_up() const { return give_up_ && give_up_(); }

 private:
  std::function<bool()> give_up_;
};

}  // namespace fl
