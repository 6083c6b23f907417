#include "aggregator/net/upload_hasher.h"

#include <utility>

namespace fl {
namespace {

Delivery verified(Delivery delivery) {
  if (delivery.hash && delivery.hash->finish() != delivery.blob->sha256) {
    const Message& message = *delivery.arrival.message;
    delivery.arrival.message = Message(message.type(), message.round(), message.header(), SharedBuffer());
  }
  delivery.hash.reset();
  return delivery;
}

}  // namespace

UploadHasher::UploadHasher(std::function<void(Delivery)> deliver) : deliver_(std::move(deliver)), thread_([this] { work(); }) {}

UploadHasher::~UploadHasher() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void UploadHasher::add(Delivery delivery) {
  {
    const std::lock_guard lock(mutex_);
    // Small updates come in one frame and need no hash: as long as nothing is before them they need not change threads.
    if (delivery.hash || busy_ || !items_.empty()) {
      items_.push_back({{}, std::make_unique<Delivery>(std::move(delivery))});
      changed_.notify_one();
      return;
    }
  }
  deliver_(std::move(delivery));
}

void UploadHasher::add(UploadPiece piece) {
  {
    const std::lock_guard lock(mutex_);
    items_.push_back({std::move(piece), nullptr});
  }
  changed_.notify_one();
}

void UploadHasher::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return over_ || !items_.empty(); });
    if (over_) return;
    Item item = std::move(items_.front());
    items_.pop_front();
    busy_ = true;
    lock.unlock();
    if (item.delivery) {
      deliver_(verified(std::move(*item.delivery)));
    } else {
      item.piece.hash->add(item.piece.bytes);
    }
    item = {};  // lets go of the memory, whose return others are told of
    lock.lock();
    busy_ = false;
  }
}

}  // namespace fl
