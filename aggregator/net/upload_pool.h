#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>

#include "fl_core/base/buffer.h"

namespace fl {

/// The memory for updates on their way in: at most `credits` buffers at a time, whatever the number of clients. A buffer is
/// lent with its credit and comes back when its last holder lets go, from any thread; it is kept for the next upload.
class UploadPool {
 public:
  /// `on_free` is called, by the thread that lets go, each time a credit comes back while the pool exists.
  UploadPool(std::size_t credits, std::function<void()> on_free);
  ~UploadPool();
  UploadPool(const UploadPool&) = delete;
  UploadPool& operator=(const UploadPool&) = delete;

  /// A buffer being filled; destroying it gives the credit back.
  class Lease {
   public:
    Lease() = default;
    explicit operator bool() const { return hold_ != nullptr; }
    std::span<std::byte> bytes() const;
    /// The filled bytes as an immutable buffer that carries the credit with it.
    SharedBuffer share() &&;

   private:
    friend class UploadPool;
    struct Hold;
    std::shared_ptr<Hold> hold_;
  };

  /// Empty when no credit is left. `size_bytes` was checked by the caller.
  Lease take(std::size_t size_bytes);
  std::size_t lent() const;

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace fl
