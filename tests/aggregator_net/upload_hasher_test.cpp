#include "aggregator/net/upload_hasher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <latch>
#include <mutex>
#include <thread>

namespace fl {
namespace {

using testing::ElementsAre;

/// Collects what is delivered, and waits for a number of deliveries.
class Collected {
 public:
  void take(Delivery delivery) {
    const std::lock_guard lock(mutex_);
    all_.push_back(std::move(delivery));
    changed_.notify_all();
  }
  std::vector<Delivery> wait_for(std::size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return all_.size() >= count; });
    return std::move(all_);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Delivery> all_;
};

Bytes counted(std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 & 0xff);
  return bytes;
}

Delivery whole(ClientId client, const SharedBuffer& body, std::shared_ptr<Sha256> hash = nullptr) {
  Delivery delivery;
  delivery.arrival = Arrival{Arrival::Kind::message, client, 1, 0, Message(MessageType::update, 1, SharedBuffer::copy_of({}), body)};
  if (hash) delivery.blob = reference_to(body.span());
  delivery.hash = std::move(hash);
  return delivery;
}

TEST(UploadHasher, PassesAnUploadOnThatIsWhatItsSenderSaid) {
  Collected collected;
  UploadHasher hasher([&](Delivery delivery) { collected.take(std::move(delivery)); });
  const SharedBuffer body(counted(100'000));
  const auto hash = std::make_shared<Sha256>();
  for (std::size_t start = 0; start < body.size(); start += 30'000) hasher.add(UploadPiece{hash, {}, body.span().subspan(start, std::min<std::size_t>(30'000, body.size() - start))});
  hasher.add(whole(5, body, hash));
  const auto all = collected.wait_for(1);
  EXPECT_EQ(all[0].arrival.client, 5U);
  EXPECT_EQ(all[0].arrival.message->body().size(), body.size());
}

TEST(UploadHasher, TakesTheBodyOfOneThatIsNot) {
  Collected collected;
  UploadHasher hasher([&](Delivery delivery) { collected.take(std::move(delivery)); });
  const SharedBuffer body(counted(1000));
  const auto hash = std::make_shared<Sha256>();
  hasher.add(UploadPiece{hash, {}, body.span().first(999)});
  hasher.add(whole(5, body, hash));
  const auto all = collected.wait_for(1);
  EXPECT_EQ(all[0].arrival.kind, Arrival::Kind::message);
  EXPECT_EQ(all[0].arrival.message->body().size(), 0U);
}

TEST(UploadHasher, DeliversAtOnceWhatWaitsForNothing) {
  std::thread::id by;
  UploadHasher hasher([&](const Delivery&) { by = std::this_thread::get_id(); });
  hasher.add(whole(1, SharedBuffer(counted(10))));
  EXPECT_EQ(by, std::this_thread::get_id());
}

TEST(UploadHasher, KeepsTheOrder) {
  Collected collected;
  std::latch first_is_held(1);
  UploadHasher hasher([&](Delivery delivery) {
    if (delivery.arrival.client == 1) first_is_held.wait();
    collected.take(std::move(delivery));
  });
  const SharedBuffer body(counted(1000));
  const auto hash = std::make_shared<Sha256>();
  hasher.add(UploadPiece{hash, {}, body.span()});
  hasher.add(whole(1, body, hash));
  hasher.add(whole(2, SharedBuffer(counted(10))));
  hasher.add(whole(3, SharedBuffer(counted(10))));
  first_is_held.count_down();
  std::vector<ClientId> clients;
  for (const Delivery& one : collected.wait_for(3)) clients.push_back(one.arrival.client);
  EXPECT_THAT(clients, ElementsAre(1, 2, 3));
}

TEST(UploadHasher, EndsWithWorkLeft) {
  const SharedBuffer body(counted(1000));
  UploadHasher hasher([](const Delivery&) {});
  for (int i = 0; i < 100; ++i) hasher.add(UploadPiece{std::make_shared<Sha256>(), {}, body.span()});
}

}  // namespace
}  // namespace fl
