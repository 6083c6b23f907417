#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>

namespace fl {

struct Worker;

/// Work in parts that can be done in any order by whoever has nothing better to do: which parts are done, and what went wrong. Any thread.
class SpareWork {
 public:
  using Action = std::function<void(Worker&, std::size_t part)>;
  /// Parts 0 … parts - 1. The action is called once for each, by any worker, until one throws or drop() was said.
  SpareWork(std::size_t parts, Action action) : parts_(parts), action_(std::move(action)) {}

  /// The next part for whoever asks, who must run() it; nothing when all are begun.
  std::optional<std::size_t> take();
  void run(Worker& worker, std::size_t part);
  /// Parts that were not begun are not done any more.
  void drop();

  /// Whether no part is being done, nor will be.
  bool over() const;
  /// Waits until it is over, but not longer than that. Returns over().
  bool wait_for(std::chrono::milliseconds most);
  /// Throws the first thing that a part threw.
  void check() const;

 private:
  bool is_over() const { return running_ == 0 && next_ >= parts_; }

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t parts_;
  Action action_;
  std::size_t next_ = 0;
  std::size_t running_ = 0;
  std::exception_ptr error_;
};

}  // namespace fl
