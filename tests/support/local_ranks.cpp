#include "tests/support/local_ranks.h"

#include <algorithm>
#include <chrono>

namespace fl::test {

class LocalRanks::One final : public Communicator {
 public:
  One(LocalRanks& group, std::size_t rank) : group_(group), rank_(rank) {}

  std::size_t rank() const override { return rank_; }
  std::size_t size() const override { return group_.inboxes_.size(); }
  std::string host() const override { return "here"; }

  void post(std::size_t to, Letter letter) override {
    const std::lock_guard lock(group_.mutex_);
    group_.inboxes_.at(to).push_back({rank_, std::move(letter)});
  }

  std::optional<Received> poll() override {
    const std::lock_guard lock(group_.mutex_);
    auto& inbox = group_.inboxes_[rank_];
    if (inbox.empty()) return std::nullopt;
    std::optional<Received> first = std::move(inbox.front());
    inbox.pop_front();
    return first;
  }

  bool sending() const override { return false; }
  void flush() override {}

  void broadcast(std::span<std::byte> bytes) override {
    std::unique_lock lock(group_.mutex_);
    Collective& mine = group_.collectives_[next_++];
    ++mine.joined;
    if (rank_ == 0) {
      ++group_.broadcasts_;
      mine.bytes.assign(bytes.begin(), bytes.end());
      mine.total.resize(1);  // the mark that the bytes are there
    }
    group_.changed_.notify_all();
    wait(lock, [&] { return !mine.total.empty(); });
    if (rank_ != 0) std::copy(mine.bytes.begin(), mine.bytes.end(), bytes.begin());  // rank 0's are being read by others
  }

  void sum(std::span<const std::int64_t> mine, std::span<std::int64_t> total) override {
    std::unique_lock lock(group_.mutex_);
    Collective& all = group_.collectives_[next_++];
    all.total.resize(mine.size());
    for (std::size_t i = 0; i < mine.size(); ++i) all.total[i] += mine[i];
    ++all.joined;
    group_.changed_.notify_all();
    if (rank_ != 0) return;
    wait(lock, [&] { return all.joined == size(); });
    std::copy(all.total.begin(), all.total.end(), total.begin());
  }

 private:
  template <class Done>
  void wait(std::unique_lock<std::mutex>& lock, Done done) {
    while (!done()) {
      if (gives_up()) throw RankLost("gave up");
      group_.changed_.wait_for(lock, std::chrono::milliseconds(5));
    }
  }

  LocalRanks& group_;
  std::size_t rank_;
  std::uint64_t next_ = 0;
};

std::size_t LocalRanks::broadcasts() const {
  const std::lock_guard lock(mutex_);
  return broadcasts_;
}

LocalRanks::LocalRanks(std::size_t size) : inboxes_(size) {
  for (std::size_t rank = 0; rank < size; ++rank) communicators_.push_back(std::make_unique<One>(*this, rank));
}

}  // namespace fl::test
