#include "aggregator/net/upload_pool.h"

#include <algorithm>
#include <mutex>
#include <vector>

namespace fl {

/// Outlives the pool while a buffer is lent.
struct UploadPool::State {
  std::mutex mutex;
  std::vector<Bytes> idle;
  std::size_t credits = 0;
  std::size_t lent = 0;
  std::function<void()> on_free;
  bool open = true;  ///< the pool still exists

  /// An idle buffer that is large enough, or none. REQUIRES: the lock.
  Bytes reuse(std::size_t size_bytes) {
    const auto found = std::find_if(idle.begin(), idle.end(), [&](const Bytes& one) { return one.size() >= size_bytes; });
    if (found == idle.end()) return {};
    Bytes buffer = std::move(*found);
    idle.erase(found);
    return buffer;
  }
};

struct UploadPool::Lease::Hold {
  Hold(std::shared_ptr<State> state, Bytes reused) : pool(std::move(state)), buffer(std::move(reused)) {}
  ~Hold() {
    std::function<void()> on_free;
    {
      const std::lock_guard lock(pool->mutex);
      --pool->lent;
      if (pool->open && pool->idle.size() + pool->lent < pool->credits) pool->idle.push_back(std::move(buffer));
      on_free = pool->on_free;
    }
    if (on_free) on_free();
  }
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;

  std::shared_ptr<State> pool;
  Bytes buffer;
  std::size_t size = 0;
};

std::span<std::byte> UploadPool::Lease::bytes() const { return hold_->buffer.span().first(hold_->size); }

SharedBuffer UploadPool::Lease::share() && {
  const std::span<const std::byte> filled = bytes();
  return {std::move(hold_), filled};
}

UploadPool::UploadPool(std::size_t credits, std::function<void()> on_free) : state_(std::make_shared<State>()) {
  state_->credits = credits;
  state_->on_free = std::move(on_free);
}

UploadPool::~UploadPool() {
  const std::lock_guard lock(state_->mutex);
  state_->on_free = nullptr;
  state_->open = false;
  state_->idle.clear();
}

UploadPool::Lease UploadPool::take(std::size_t size_bytes) {
  Lease lease;
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->lent >= state_->credits) return lease;
    lease.hold_ = std::make_shared<Lease::Hold>(state_, state_->reuse(size_bytes));
    ++state_->lent;
    // A buffer that fits nobody must not stay beside the new one.
    if (lease.hold_->buffer.size() < size_bytes && !state_->idle.empty()) state_->idle.pop_back();
  }
  lease.hold_->size = size_bytes;
  if (lease.hold_->buffer.size() < size_bytes) lease.hold_->buffer = Bytes::uninitialised(size_bytes);
  return lease;
}

std::size_t UploadPool::lent() const {
  const std::lock_guard lock(state_->mutex);
  return state_->lent;
}

}  // namespace fl
