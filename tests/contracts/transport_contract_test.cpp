#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
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
TEST(WorkerPool, RunsEveryActionOnceAndPassesOnWhatOneThrows) {
  Fleet fleet(test::toy_experiment(), 3);
  std::vector<std::atomic<int>> calls(100);
  fleet.pool().for_each(calls.size(), [&](Worker& worker, std::size_t i) {
    EXPECT_NE(worker.model, nullptr);
    ++calls[i];
  });
  for (const auto& count : calls) EXPECT_EQ(count, 1);
  const auto third_fails = [](Worker&, std::size_t i) {
    if (i == 3) throw ConfigError("no");
  };
  EXPECT_THROW(fleet.pool().for_each(5, third_fails), ConfigError);
  fleet.pool().for_each(0, [](Worker&, std::size_t) {});
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
  EXPECT_THROW(fleet.pool().for_each(1000, action), Interrupted);
  EXPECT_LE(calls, 1);
}

TEST(WorkerPool, AWorkerThatCannotBeMadeIsAnErrorOfTheCaller) {
  Fleet fleet(test::toy_experiment(), 2, nullptr, []() -> Worker { throw ConfigError("no model"); });
  EXPECT_THROW(fleet.pool().for_each(4, [](Worker&, std::size_t) {}), ConfigError);
}

}  // namespace
}  // namespace fl
