#include "client/secure_session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "privacy/secagg/server.h"
#include "simulations/simulated_enrolment.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using testing::HasSubstr;

/// Four clients of a model of two floats, and the server's half of the protocol by hand.
class SecureSessionTest : public testing::Test {
 protected:
  SecureSessionTest() {
    plan_.max_cohort = 4;
    plan_.section.adversary_rate = 0;
    plan_.section.dropout_rate = 0.25;
    const std::vector<float> weights = {1, 2};
    weights_ = SharedBuffer::copy_of(std::as_bytes(std::span(weights)));
    for (ClientId client = 0; client < 4; ++client) sessions_.push_back(make(client));
  }

  SecureVector vector() const { return secure_vector_of(plan_, nullptr, 0, 2); }
  std::unique_ptr<SecureSession> make(ClientId client, const SecAggPolicy& policy = {}) {
    return std::make_unique<SecureSession>(SecureSessionParts{client, "run", vector(), secagg_plan(plan_, vector(), nullptr), policy, [this] { return simulated_enrolment(judge_); }, keys_, 1,
                                                              [this](std::uint32_t round) {
                                                                if (disk_is_full_) throw IoError("no space left");
                                                                noted_.push_back(round);
                                                              }});
  }
  Task task(std::uint32_t round = 1) const { return {TaskKind::train, round, 0, 7, weights_}; }
  Message begin(ClientId client, std::uint32_t round = 1) { return sessions_[client]->begin(task(round), std::vector<float>{0.5, -0.25}, {10, 10, 1, 0}); }
  static Message step(std::uint32_t number, SecAggBytes body, std::uint32_t round = 1) {
    return encode_secure(MessageType::secure_step, {round, 0, 7, number}, SharedBuffer::copy_of(body));
  }

  /// Adverts of all four, and the body of step 2 for everybody.
  std::vector<SecAggMail> rosters() {
    server_.emplace(SecAggRound{session_of("run"), 1, Sha256().add(weights_.span()).finish()}, secagg_plan(plan_, vector(), nullptr), peers_);
    std::vector<Credential> credentials;
    for (ClientId client = 0; client < 4; ++client) {
      const Message answer = begin(client);
      EXPECT_EQ(answer.type(), MessageType::secure_answer);
      const auto body = answer.body().span();
      const auto credential = body.subspan(kAdvertMessageBytes);
      peers_.add(client, credential, *judge_);
      server_->add_advert(client, body.first(kAdvertMessageBytes));
      credentials.emplace_back(client, std::vector<std::byte>(credential.begin(), credential.end()));
    }
    auto mails = server_->close_adverts();
    for (SecAggMail& mail : mails) mail.bytes = encode_envelope(credentials, mail.bytes);
    return mails;
  }
  /// Bodies of step 3.
  std::vector<SecAggMail> inboxes() {
    for (const SecAggMail& mail : rosters()) {
      const Message answer = sessions_[mail.client]->answer(step(2, mail.bytes));
      EXPECT_EQ(server_->add_shares(mail.client, answer.body().span()), SecAggReceipt::counted);
    }
    return server_->close_shares();
  }

  SecureAggregationPlan plan_;
  SharedBuffer weights_;
  std::shared_ptr<const CredentialJudge> judge_ = std::make_shared<const EverybodyIsEnrolled>();
  SecureNoiseKeys keys_;
  std::vector<std::uint32_t> noted_;
  bool disk_is_full_ = false;
  KnownPeers peers_;
  std::optional<SecAggServer> server_;
  std::vector<std::unique_ptr<SecureSession>> sessions_;
};

TEST_F(SecureSessionTest, TheRoundIsNotedBeforeTheVectorLeaves) {
  const auto mails = inboxes();
  EXPECT_TRUE(noted_.empty());
  EXPECT_FALSE(sessions_[0]->masked(1));
  const Message answer = sessions_[0]->answer(step(3, mails[0].bytes));
  EXPECT_EQ(answer.type(), MessageType::secure_answer);
  EXPECT_EQ(noted_, std::vector<std::uint32_t>{1});
  EXPECT_TRUE(sessions_[0]->masked(1));
  EXPECT_FALSE(sessions_[0]->masked(2));
  EXPECT_EQ(begin(0).type(), MessageType::failed);
  EXPECT_EQ(begin(0, 2).type(), MessageType::secure_answer);
}

TEST_F(SecureSessionTest, NothingLeavesWhenItCannotBeNoted) {
  const auto mails = inboxes();
  disk_is_full_ = true;
  EXPECT_THROW(sessions_[0]->answer(step(3, mails[0].bytes)), IoError);
  disk_is_full_ = false;
  const Message again = sessions_[0]->answer(step(3, mails[0].bytes));
  EXPECT_EQ(again.type(), MessageType::failed) << "the secrets are gone";
}

TEST_F(SecureSessionTest, AStepThatItKnowsNothingOfFails) {
  const Message unknown = make(2)->answer(step(3, {}));
  EXPECT_THAT(parse_failure(unknown), HasSubstr("client 2: it takes no part in this round's secure aggregation"));
  begin(1);
  EXPECT_EQ(sessions_[1]->answer(step(2, {}, 2)).type(), MessageType::failed) << "of another round";
}

TEST_F(SecureSessionTest, AFaultEndsTheRoundWithAReason) {
  auto mails = rosters();
  mails[1].bytes.back() ^= std::byte{1};
  const Message failed = sessions_[1]->answer(step(2, mails[1].bytes));
  EXPECT_THAT(parse_failure(failed), HasSubstr("client 1: secure aggregation, round 1: "));
  mails[1].bytes.back() ^= std::byte{1};
  EXPECT_EQ(sessions_[1]->answer(step(2, mails[1].bytes)).type(), MessageType::failed) << "once is enough";
  // A step that is left out.
  EXPECT_EQ(sessions_[2]->answer(step(4, mails[2].bytes)).type(), MessageType::failed);
}

TEST_F(SecureSessionTest, ANewTaskBeginsAfresh) {
  const Message first = begin(0);
  const Message second = begin(0);
  EXPECT_FALSE(std::equal(first.body().span().begin(), first.body().span().end(), second.body().span().begin())) << "keys are made once";
}

TEST_F(SecureSessionTest, AnUpdateThatDoesNotFitIsSaidAtOnce) {
  SecureSession& session = *sessions_[0];
  EXPECT_THAT(parse_failure(session.begin(task(), std::vector<float>{64, 0}, {1, 1, 1, 0})), HasSubstr("round.update_bound_bits"));
  EXPECT_THAT(parse_failure(session.begin(task(), std::vector<float>{std::numeric_limits<float>::quiet_NaN(), 0}, {1, 1, 1, 0})), HasSubstr("NaN"));
}

TEST_F(SecureSessionTest, APlanBelowTheOwnersPolicyFails) {
  SecAggPolicy policy;
  policy.adversary_rate = 0.5;
  EXPECT_THAT(parse_failure(make(0, policy)->begin(task(), std::vector<float>{0, 0}, {1, 1, 1, 0})), HasSubstr("this client insists on 0.5"));
}

}  // namespace
}  // namespace fl
