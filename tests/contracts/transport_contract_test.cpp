#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "simulations/in_process.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

/// A federation of 20 toy clients behind a pool of workers.
class Fleet {
 public:
  Fleet(const nlohmann::json& document, std::size_t workers, std::function<bool()> should_stop = nullptr,
        std::function<Worker()> make_worker = nullptr)
      : experiment_(parse_experiment(document, "test")),
        data_(data_sources().create(experiment_.data, "data")->load(3)),
        partition_(partitions().create(experiment_.partition, "partition", PartitionContext{data_.train, 3, "partition"})),
        codec_(codecs().create(experiment_.codec, "codec")),
        model_(test::make_toy_model(data_.train->shape(), 1)) {
    if (!make_worker) make_worker = [this] { return worker(); };
    const InProcessParts parts{experiment_, *partition_, *data_.train, *codec_, std::move(make_worker), std::move(should_stop)};
    pool_ = std::make_unique<InProcess>(parts, workers);
  }

  Transport& transport() { return *pool_; }
  InProcess& pool() { return *pool_; }
  Message task(std::uint32_t round, TaskKind kind = TaskKind::train) {
    const auto weights = std::as_bytes(std::span<const float>(model_->weights()));
    return encode_task({kind, round, 0, model_->layout()->fingerprint(), SharedBuffer::copy_of(weights)});
  }

 private:
  Worker worker() { return {test::make_toy_model(data_.train->shape(), 1), trainers().create(experiment_.trainer, "trainer"), nullptr}; }

  Experiment experiment_;
  DataSplits data_;
  std::unique_ptr<Partition> partition_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<InProcess> pool_;
};

class TransportContract : public ::testing::TestWithParam<std::size_t> {
 protected:
  TransportContract() : document_(test::toy_experiment()) {}
  void devices(const nlohmann::json& options) { document_["devices"] = options; }
  std::unique_ptr<Fleet> fleet() { return std::make_unique<Fleet>(document_, GetParam()); }

  nlohmann::json document_;
};

TEST_P(TransportContract, AnswersEverySendExactlyOnceInOrderOfTime) {
  devices({{"examples_per_s", 50}, {"speed_spread", 1}, {"failure_probability", 0.3}});
  const auto clients = fleet();
  for (ClientId client = 0; client < 20; ++client) clients->transport().send(client, clients->task(1));
  std::map<ClientId, Arrival::Kind> answers;
  Seconds before = 0;
  for (int i = 0; i < 20; ++i) {
    const auto arrival = clients->transport().wait(kNever);
    ASSERT_TRUE(arrival.has_value());
    EXPECT_EQ(arrival->round, 1U);
    EXPECT_GE(arrival->time, before);
    EXPECT_EQ(arrival->time, clients->transport().now());
    before = arrival->time;
    EXPECT_TRUE(answers.emplace(arrival->client, arrival->kind).second) << "client " << arrival->client << " answered twice";
    EXPECT_EQ(arrival->message.has_value(), arrival->kind == Arrival::Kind::message);
  }
  EXPECT_EQ(answers.size(), 20U);
  EXPECT_EQ(clients->transport().wait(before + 1), std::nullopt);
}

TEST_P(TransportContract, SameArrivalsInEveryRun) {
  devices({{"examples_per_s", 50}, {"speed_spread", 1}, {"failure_probability", 0.3}});
  const auto run = [&](std::size_t workers) {
    Fleet clients(document_, workers);
    for (ClientId client = 0; client < 20; ++client) clients.transport().send(client, clients.task(1));
    std::vector<std::pair<ClientId, Seconds>> order;
    for (int i = 0; i < 20; ++i) {
      const auto arrival = clients.transport().wait(kNever);
      order.emplace_back(arrival->client, arrival->time);
    }
    return order;
  };
  EXPECT_EQ(run(GetParam()), run(1));
}

TEST_P(TransportContract, WaitingForNothingLetsTheTimePass) {
  const auto clients = fleet();
  EXPECT_EQ(clients->transport().wait(7), std::nullopt);
  EXPECT_EQ(clients->transport().now(), 7);
}

TEST_P(TransportContract, ADeadlineCutsOffWhatIsLaterAndDeliversItAfterwards) {
  devices({{"examples_per_s", 1}, {"latency_s", 1}, {"bandwidth_mbit_s", 1e9}});  // 20 examples a client: 21 s
  const auto clients = fleet();
  clients->transport().send(4, clients->task(1));
  EXPECT_EQ(clients->transport().wait(20.5), std::nullopt);
  EXPECT_EQ(clients->transport().now(), 20.5);
  const auto late = clients->transport().wait(kNever);
  ASSERT_TRUE(late.has_value());
  EXPECT_EQ(late->client, 4U);
  EXPECT_NEAR(late->time, 21, 1e-6);
}

TEST_P(TransportContract, AClosedRoundComesBackAsClosed) {
  devices({{"examples_per_s", 10}, {"speed_spread", 1}});
  const auto clients = fleet();
  for (ClientId client = 0; client < 20; ++client) clients->transport().send(client, clients->task(1));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(clients->transport().wait(kNever)->kind, Arrival::Kind::message);
  clients->transport().close_round(1);
  clients->transport().send(5, clients->task(2));
  int closed = 0;
  int answered = 0;
  for (int i = 0; i < 18; ++i) {
    const auto arrival = clients->transport().wait(kNever);
    closed += arrival->kind == Arrival::Kind::closed && arrival->round == 1 ? 1 : 0;
    answered += arrival->kind == Arrival::Kind::message && arrival->round == 2 ? 1 : 0;
  }
  EXPECT_EQ(closed, 17);
  EXPECT_EQ(answered, 1);
}

TEST_P(TransportContract, MeasuringTakesNoTime) {
  devices({{"examples_per_s", 1}});
  document_["evaluation"] = {{"client_holdout", 0.2}};
  const auto clients = fleet();
  for (ClientId client = 0; client < 5; ++client) clients->transport().send(client, clients->task(1, TaskKind::evaluate));
  for (int i = 0; i < 5; ++i) EXPECT_EQ(clients->transport().wait(kNever)->time, 0);
}

TEST_P(TransportContract, DestructionWithWorkOutstandingEnds) {
  const auto clients = fleet();
  for (ClientId client = 0; client < 20; ++client) clients->transport().send(client, clients->task(1));
  clients->transport().wait(kNever);
}

TEST_P(TransportContract, AskedToStopItThrowsInterrupted) {
  Fleet clients(document_, GetParam(), [] { return true; });
  for (ClientId client = 0; client < 20; ++client) clients.transport().send(client, clients.task(1));
  EXPECT_THROW(clients.transport().wait(kNever), Interrupted);
}

INSTANTIATE_TEST_SUITE_P(InProcess, TransportContract, ::testing::Values(1, 2, 5),
                         [](const auto& workers) { return "Workers" + std::to_string(workers.param); });

/// The pool's other duty, beside the mailbox.
TEST(WorkerPool, DoesEveryPartOnceAndPassesOnWhatOneThrows) {
  Fleet fleet(test::toy_experiment(), 3);
  std::vector<std::atomic<int>> calls(100);
  const auto all = fleet.pool().when_idle(calls.size(), [&](Worker& worker, std::size_t i) {
    EXPECT_NE(worker.model, nullptr);
    ++calls[i];
  });
  fleet.pool().await(*all);
  EXPECT_TRUE(all->over());
  for (const auto& count : calls) EXPECT_EQ(count, 1);
  const auto third_fails = [](Worker&, std::size_t i) {
    if (i == 3) throw ConfigError("no");
  };
  EXPECT_THROW(fleet.pool().await(*fleet.pool().when_idle(5, third_fails)), ConfigError);
  EXPECT_TRUE(fleet.pool().when_idle(0, third_fails)->over());
}

TEST(WorkerPool, AskedToStopItDropsWhatIsLeft) {
  std::atomic<int> polls = 0;
  Fleet fleet(test::toy_experiment(), 1, [&] { return ++polls > 0; });
  int calls = 0;
  // The one worker stays in the first action until the caller has asked whether to stop; it asks under the pool's lock and
  // drops the other actions before it lets go.
  const auto action = [&](Worker&, std::size_t) {
    ++calls;
    while (polls == 0) std::this_thread::yield();
  };
  EXPECT_THROW(fleet.pool().await(*fleet.pool().when_idle(1000, action)), Interrupted);
  EXPECT_LE(calls, 1);
}

TEST(WorkerPool, WhatHasTimeIsDoneWhenNoJobCanBeStarted) {
  Fleet fleet(test::toy_experiment(), 1);
  // Jobs that sum can all be started, however few were delivered.
  fleet.pool().sum_updates(fleet.task(1).body().size() / sizeof(float), 20, 6);
  // The one worker is held in a first part while jobs and other parts are given.
  std::promise<void> held;
  std::promise<void> go_on;
  const auto first = fleet.pool().when_idle(1, [&](Worker&, std::size_t) {
    held.set_value();
    go_on.get_future().wait();
  });
  held.get_future().wait();
  std::size_t waiting_jobs = 0;
  const auto second = fleet.pool().when_idle(3, [&](Worker&, std::size_t) { waiting_jobs += fleet.pool().backlog().jobs; });
  for (ClientId client = 0; client < 20; ++client) fleet.transport().send(client, fleet.task(1));
  EXPECT_EQ(fleet.pool().backlog().jobs, 20U);
  go_on.set_value();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(fleet.transport().wait(kNever));
  fleet.pool().await(*second);
  EXPECT_EQ(waiting_jobs, 0U) << "a part was done while a job could have been";
}

TEST(WorkerPool, JobsAreAnsweredWhileAPartIsStillBeingDone) {
  Fleet fleet(test::toy_experiment(), 2);
  std::promise<void> held;
  std::promise<void> go_on;
  const auto slow = fleet.pool().when_idle(1, [&](Worker&, std::size_t) {
    held.set_value();
    go_on.get_future().wait();
  });
  held.get_future().wait();
  for (ClientId client = 0; client < 20; ++client) fleet.transport().send(client, fleet.task(1));
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(fleet.transport().wait(kNever));
  EXPECT_FALSE(slow->over());
  go_on.set_value();
  fleet.pool().await(*slow);
  EXPECT_TRUE(slow->over());
}

TEST(WorkerPool, DroppedWorkEndsWithThePartsThatWereBegun) {
  Fleet fleet(test::toy_experiment(), 1);
  std::promise<void> held;
  std::promise<void> go_on;
  std::atomic<int> calls = 0;
  const auto work = fleet.pool().when_idle(5, [&](Worker&, std::size_t) {
    ++calls;
    held.set_value();
    go_on.get_future().wait();
  });
  held.get_future().wait();
  work->drop();
  EXPECT_FALSE(work->over());
  go_on.set_value();
  fleet.pool().await(*work);
  EXPECT_EQ(calls, 1);
}

TEST(WorkerPool, RingsWhenAWorkerFindsNothingToDo) {
  Fleet fleet(test::toy_experiment(), 1);
  std::mutex mutex;
  std::condition_variable changed;
  int rings = 0;
  std::promise<void> held;
  std::promise<void> go_on;
  fleet.pool().ring_when_idle([&] {
    const std::lock_guard lock(mutex);
    ++rings;
    changed.notify_all();
  });
  const auto work = fleet.pool().when_idle(1, [&](Worker&, std::size_t) {
    held.set_value();
    go_on.get_future().wait();
  });
  held.get_future().wait();
  EXPECT_TRUE(fleet.pool().busy());
  std::unique_lock lock(mutex);
  const int before = rings;
  go_on.set_value();
  changed.wait(lock, [&] { return rings > before; });
  lock.unlock();
  fleet.pool().ring_when_idle(nullptr);
  EXPECT_FALSE(fleet.pool().busy());
}

TEST(WorkerPool, AWorkerThatCannotBeMadeIsAnErrorOfTheCaller) {
  Fleet fleet(test::toy_experiment(), 2, nullptr, []() -> Worker { throw ConfigError("no model"); });
  EXPECT_THROW(fleet.pool().await(*fleet.pool().when_idle(4, [](Worker&, std::size_t) {})), ConfigError);
}

}  // namespace
}  // namespace fl
