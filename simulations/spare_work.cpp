#include "simulations/spare_work.h"

namespace fl {

std::optional<std::size_t> SpareWork::take() {
  const std::lock_guard lock(mutex_);
  if (next_ >= parts_) return std::nullopt;
  ++running_;
  return next_++;
}

void SpareWork::run(Worker& worker, std::size_t part) {
  std::exception_ptr thrown;
  try {
    action_(worker, part);
  } catch (...) {
    thrown = std::current_exception();
  }
  const std::lock_guard lock(mutex_);
  --running_;
  if (thrown) {
    if (!error_) error_ = std::move(thrown);
    parts_ = next_;
  }
  if (is_over()) changed_.notify_all();
}

void SpareWork::drop() {
  const std::lock_guard lock(mutex_);
  parts_ = next_;
  if (is_over()) changed_.notify_all();
}

bool SpareWork::over() const {
  const std::lock_guard lock(mutex_);
  return is_over();
}

bool SpareWork::wait_for(std::chrono::milliseconds most) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, most, [this] { return is_over(); });
}

void SpareWork::check() const {
  const std::lock_guard lock(mutex_);
  if (error_) std::rethrow_exception(error_);
}

}  // namespace fl
