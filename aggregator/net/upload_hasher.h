#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "aggregator/net/desk.h"

namespace fl {

/// A thread that hashes uploads piece by piece, between the one that decrypts them and the one that folds them: each has a core of its own
/// where there are three. An upload that is not what its sender said it would be is delivered without its body, which the engine finds
/// malformed.
class UploadHasher {
 public:
  /// `deliver` is called in the order of add(), by this object's thread or by the caller's.
  explicit UploadHasher(std::function<void(Delivery)> deliver);
  /// What was not delivered is forgotten.
  ~UploadHasher();
  UploadHasher(const UploadHasher&) = delete;
  UploadHasher& operator=(const UploadHasher&) = delete;

  // Both by one thread.
  void add(UploadPiece piece);
  void add(Delivery delivery);

 private:
  struct Item {
    UploadPiece piece;                   ///< where there is no delivery
    std::unique_ptr<Delivery> delivery;
  };
  void work();

  std::function<void(Delivery)> deliver_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> items_;
  bool busy_ = false;   ///< an item was taken out and is not done
  bool over_ = false;
  std::thread thread_;
};

}  // namespace fl
