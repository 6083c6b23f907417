// A round under secure aggregation with clients that misbehave: the engine, the collector and honest sessions between them.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <set>

#include "aggregator/engine/round_engine.h"
#include "aggregator/engine/secure_setup.h"
#include "client/secure_session.h"
#include "fl_core/base/error.h"
#include "fl_core/wire/limits.h"
#include "simulations/simulated_enrolment.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using testing::HasSubstr;

constexpr std::size_t kClients = 8;
constexpr std::uint32_t kTrain = 1;

/// What a client does with the answer that it would give in this step (1: to the train task); nothing: it leaves.
using Misbehave = std::function<std::optional<Message>(std::uint32_t step, Message honest)>;

/// Clients that each have a fixed update, and answer at once. Arrivals of a step come in an order of its own.
class Clients final : public Transport {
 public:
  Clients(const Experiment& experiment, const SecureSetup& setup, SharedLayout layout, std::shared_ptr<const CredentialJudge> judge)
      : layout_(std::move(layout)) {
    for (ClientId client = 0; client < kClients; ++client) {
      SecAggPolicy policy;
      policy.security_bits = 1;
      sessions.push_back(std::make_unique<SecureSession>(SecureSessionParts{client, "run", setup.vector, setup.protocol, policy,
                                                                            [this, client, judge] {
                                                                              if (!identities.contains(client)) identities[client] = simulated_enrolment(judge);
                                                                              return identities.at(client);
                                                                            },
                                                                            keys_, static_cast<std::uint64_t>(experiment.seed), {}}));
    }
  }

  /// Of client `client`: each differs.
  static std::vector<float> update_of(ClientId client) { return {1.0F + static_cast<float>(client), -0.5F, 1.0F / (3.0F + static_cast<float>(client))}; }
  static std::uint32_t weight_of(ClientId client) { return 10 + static_cast<std::uint32_t>(client); }

  Roster roster() override { return {kClients, {}}; }
  void send(ClientId client, const Message& message) override {
    const bool train = message.type() == MessageType::train;
    const std::uint32_t step = train ? kTrain : parse_secure_header(message).step;
    ++sent[step];
    Message answer = [&] {
      if (!train) return sessions[client]->answer(message);
      return sessions[client]->begin(parse_task(message, *layout_), update_of(client), {weight_of(client), examples, 2, std::uint64_t{60} << 32U});
    }();
    std::optional<Message> given(std::move(answer));
    if (const auto found = misbehave.find(client); found != misbehave.end()) given = found->second(step, *std::move(given));
    Arrival arrival{given ? Arrival::Kind::message : Arrival::Kind::left, client, message.round(), now_, std::move(given)};
    // The last asked answers first: order does not matter.
    arrivals_.push_front(std::move(arrival));
  }
  std::optional<Arrival> wait(Seconds deadline) override {
    if (arrivals_.empty()) {
      now_ = deadline;
      return std::nullopt;
    }
    Arrival first = std::move(arrivals_.front());
    arrivals_.pop_front();
    return first;
  }
  void close_round(std::uint32_t) override {}
  Seconds now() const override { return now_; }

  std::vector<std::unique_ptr<SecureSession>> sessions;
  std::map<ClientId, std::shared_ptr<const Enrolment>> identities;
  std::map<ClientId, Misbehave> misbehave;
  std::map<std::uint32_t, int> sent;  ///< messages, by step
  std::uint64_t examples = 30;        ///< that each claims

 private:
  SharedLayout layout_;
  SecureNoiseKeys keys_;
  std::deque<Arrival> arrivals_;
  Seconds now_ = 0;
};

/// Eight clients, all asked; three may drop out.
class SecureRoundTest : public testing::Test {
 protected:
  SecureRoundTest()
      : experiment_(make_experiment()),
        layout_(std::make_shared<Layout>(std::vector<Slot>{{"w", {3}, SlotKind::weight}})),
        codec_(codecs().create(experiment_.codec, "codec")),
        sampler_(samplers().create(experiment_.sampler, "sampler")),
        strategy_(strategies().create(experiment_.strategy, "strategy", {layout_, kClients, 6})),
        judge_(std::make_shared<const EverybodyIsEnrolled>()),
        setup_(secure_setup_of(experiment_, nullptr, kClients, 3)),
        clients_(experiment_, setup_, layout_, judge_),
        collector_(make_collector(experiment_, setup_, "run", judge_)),
        global_(layout_) {}

  static Experiment make_experiment() {
    nlohmann::json document = test::toy_experiment();
    document["partition"]["clients"] = kClients;
    document["round"] = {{"cohort", kClients}};
    document["secure_aggregation"] = {{"adversary_rate", 0}, {"dropout_rate", 0.4}};
    return parse_experiment(document, "test");
  }

  RoundReport run(std::uint32_t round = 1) {
    if (!engine_) engine_ = std::make_unique<RoundEngine>(RoundParts{experiment_, clients_, *sampler_, *strategy_, *codec_, layout_, nullptr, collector_.get(), {}});
    return engine_->run_round(round, global_, version_);
  }
  /// The mean over everybody but these, as the server would have summed it.
  std::vector<float> mean_without(const std::set<ClientId>& gone) const {
    ExactSum sum(3, kClients);
    for (ClientId client = 0; client < kClients; ++client) {
      if (gone.contains(client)) continue;
      EXPECT_EQ(sum.add(Clients::update_of(client), Clients::weight_of(client)), ExactSumError::none);
    }
    std::vector<float> mean(3);
    sum.mean(mean);
    return mean;
  }
  void expect_model(const std::set<ClientId>& gone) const {
    const auto values = global_.values();
    EXPECT_EQ(std::vector<float>(values.begin(), values.end()), mean_without(gone));
  }

  Experiment experiment_;
  SharedLayout layout_;
  std::unique_ptr<Codec> codec_;
  std::unique_ptr<Sampler> sampler_;
  std::unique_ptr<Strategy> strategy_;
  std::shared_ptr<const CredentialJudge> judge_;
  SecureSetup setup_;
  Clients clients_;
  std::unique_ptr<SecureCollector> collector_;
  std::unique_ptr<RoundEngine> engine_;
  ParameterVector global_;
  std::uint32_t version_ = 0;
};

TEST_F(SecureRoundTest, TheModelIsTheExactMean) {
  const RoundReport report = run();
  EXPECT_FALSE(report.abandoned);
  EXPECT_EQ(report.count(Outcome::accepted), kClients);
  EXPECT_EQ(report.examples, 30 * static_cast<std::int64_t>(kClients));
  EXPECT_EQ(report.steps, 2 * kClients);
  EXPECT_DOUBLE_EQ(report.training_loss, 2);
  EXPECT_EQ(version_, 1U);
  expect_model({});
}

TEST_F(SecureRoundTest, ANakedUpdateIsRefused) {
  clients_.misbehave[3] = [&](std::uint32_t step, Message honest) -> std::optional<Message> {
    if (step != kTrain) return honest;
    UpdateHeader header{1, 0, layout_->fingerprint(), 10, 2, {}, "identity"};
    const auto update = Clients::update_of(3);
    return encode_update(header, SharedBuffer::copy_of(std::as_bytes(std::span(update))));
  };
  const RoundReport report = run();
  EXPECT_EQ(report.cohort[3].outcome, Outcome::malformed);
  expect_model({3});
}

/// Each kind of fault in each step: the others' sum is exact, and the outcome says what happened.
TEST_F(SecureRoundTest, OneMisbehavingClientCostsOnlyItself) {
  const std::map<std::string, std::pair<Misbehave, Outcome>> kinds = {
      {"leaves", {[](std::uint32_t, const Message&) { return std::nullopt; }, Outcome::left}},
      {"fails", {[](std::uint32_t, const Message& m) { return encode_failure(m.round(), "no"); }, Outcome::failed}},
      {"no body", {[](std::uint32_t, const Message& m) { return Message(m.type(), m.round(), m.header(), SharedBuffer()); }, Outcome::malformed}},
      {"cut short", {[](std::uint32_t, const Message& m) { return Message(m.type(), m.round(), m.header(), m.body().slice(0, m.body().size() - 1)); }, Outcome::malformed}},
      {"another type", {[](std::uint32_t, const Message& m) { return Message(MessageType::update, m.round(), m.header(), m.body()); }, Outcome::malformed}},
      {"another step", {[](std::uint32_t step, const Message& m) {
         SecureHeader header = parse_secure_header(m);
         header.step = step == 5 ? 4 : step + 1;
         return encode_secure(MessageType::secure_answer, header, m.body());
       }, Outcome::malformed}},
      {"another model", {[](std::uint32_t, const Message& m) {
         SecureHeader header = parse_secure_header(m);
         ++header.model_version;
         return encode_secure(MessageType::secure_answer, header, m.body());
       }, Outcome::malformed}},
  };
  std::uint32_t round = 0;
  for (const auto& [name, kind] : kinds) {
    for (std::uint32_t bad = 1; bad <= kSecureSteps; ++bad) {
      SCOPED_TRACE(name + " in step " + std::to_string(bad));
      clients_.misbehave[5] = [&, act = kind.first](std::uint32_t step, Message honest) { return step == bad ? act(step, honest) : std::optional<Message>(std::move(honest)); };
      std::fill(global_.values().begin(), global_.values().end(), 0.0F);
      const RoundReport report = run(++round);
      ASSERT_FALSE(report.abandoned) << engine_->last_reason();
      const bool counted = bad > 3;  // its vector was in
      if (counted) {
        EXPECT_EQ(report.cohort[5].outcome, Outcome::accepted);
      } else if (bad == 1 && (name == "another step" || name == "another model")) {
        EXPECT_EQ(report.cohort[5].outcome, Outcome::wrong_round);
      } else {
        EXPECT_EQ(report.cohort[5].outcome, kind.second);
      }
      expect_model(counted ? std::set<ClientId>() : std::set<ClientId>{5});
    }
  }
}

TEST_F(SecureRoundTest, AStolenCertificateTakesNobodysPlace) {
  // Client 7 answers first, with the credential of client 2 and its own signature.
  clients_.identities[2] = simulated_enrolment(judge_);
  clients_.misbehave[7] = [&](std::uint32_t step, Message honest) -> std::optional<Message> {
    if (step != kTrain) return honest;
    const auto body = honest.body().span();
    std::vector<std::byte> forged(body.begin(), body.begin() + static_cast<std::ptrdiff_t>(kAdvertMessageBytes));
    const auto& credential = clients_.identities.at(2)->credential;
    forged.insert(forged.end(), credential.begin(), credential.end());
    return Message(honest.type(), honest.round(), honest.header(), SharedBuffer::copy_of(forged));
  };
  const RoundReport report = run();
  EXPECT_EQ(report.cohort[7].outcome, Outcome::malformed);
  EXPECT_EQ(report.cohort[2].outcome, Outcome::accepted);
  EXPECT_THAT(engine_->last_reason(), HasSubstr("not signed by its enrolled identity"));
  expect_model({7});
}

TEST_F(SecureRoundTest, OneIdentityIsNotTwoClients) {
  clients_.identities[2] = simulated_enrolment(judge_);
  clients_.identities[6] = clients_.identities[2];
  const RoundReport report = run();
  EXPECT_EQ(report.cohort[6].outcome, Outcome::accepted) << "the last asked answers first";
  EXPECT_EQ(report.cohort[2].outcome, Outcome::malformed);
  expect_model({2});
}

TEST_F(SecureRoundTest, TooManyDropOutsUnmaskNothing) {
  for (std::uint32_t bad = 2; bad <= kSecureSteps; ++bad) {
    SCOPED_TRACE(bad);
    for (const ClientId client : {0, 2, 4, 6}) {
      clients_.misbehave[client] = [bad](std::uint32_t step, Message honest) { return step >= bad ? std::nullopt : std::optional<Message>(std::move(honest)); };
    }
    clients_.sent.clear();
    const RoundReport report = run(bad);
    EXPECT_TRUE(report.abandoned);
    EXPECT_EQ(report.count(Outcome::accepted), 0U);
    EXPECT_GE(report.count(Outcome::not_summed), 4U);
    EXPECT_EQ(clients_.sent.contains(bad + 1), false) << "the next step was asked for all the same";
    EXPECT_THAT(engine_->last_reason(), HasSubstr("secure aggregation, round " + std::to_string(bad)));
    EXPECT_EQ(version_, 0U);
  }
}

/// What clients claim of weights and examples is summed unseen; a sum that honest clients cannot have sent is refused.
TEST_F(SecureRoundTest, AbsurdTotalsAreRefused) {
  clients_.examples = static_cast<std::uint64_t>(limits::kClientExamples) + 5;
  EXPECT_TRUE(run().abandoned);
  EXPECT_THAT(engine_->last_reason(), HasSubstr("the sum of weights or examples is not one that honest clients can have sent"));
  clients_.examples = static_cast<std::uint64_t>(limits::kClientExamples);
  EXPECT_FALSE(run(2).abandoned);
}

/// The same (run, round) again, as after a crash of the server: whoever let out a masked vector answers no more.
TEST_F(SecureRoundTest, ARoundIsNeverMaskedTwice) {
  EXPECT_FALSE(run(4).abandoned);
  const RoundReport again = run(4);
  EXPECT_TRUE(again.abandoned);
  EXPECT_EQ(again.count(Outcome::failed), kClients);
  EXPECT_THAT(engine_->last_reason(), HasSubstr("its update of round 4 was masked already"));
  EXPECT_TRUE(run(3).abandoned) << "an older round neither";
  EXPECT_FALSE(run(5).abandoned);
}

TEST_F(SecureRoundTest, AServerThatCrashedBeforeMaskingMayAskAgain) {
  for (ClientId client = 0; client < kClients; ++client) {
    clients_.misbehave[client] = [](std::uint32_t step, Message honest) { return step >= 3 ? std::nullopt : std::optional<Message>(std::move(honest)); };
  }
  // Everybody leaves before the vectors arrive; but they were masked.
  EXPECT_TRUE(run(1).abandoned);
  clients_.misbehave.clear();
  EXPECT_EQ(run(1).count(Outcome::failed), kClients);
  for (ClientId client = 0; client < kClients; ++client) {
    clients_.misbehave[client] = [](std::uint32_t step, Message honest) { return step >= 2 ? std::nullopt : std::optional<Message>(std::move(honest)); };
  }
  EXPECT_TRUE(run(2).abandoned);
  clients_.misbehave.clear();
  EXPECT_FALSE(run(2).abandoned);
}

}  // namespace
}  // namespace fl
