#include "aggregator/net/desk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// Writes down what a client would get.
class FakeLine final : public Line {
 public:
  std::vector<Frame> frames;
  std::vector<std::uint64_t> blob_offsets;
  bool blob_stopped = false;
  bool ended = false;

  void send(Frame frame) override { frames.push_back(std::move(frame)); }
  void send_blob(std::uint64_t, SharedBuffer, std::uint64_t offset) override { blob_offsets.push_back(offset); }
  void stop_blob() override { blob_stopped = true; }
  void end(Frame last) override {
    frames.push_back(std::move(last));
    ended = true;
  }
  std::vector<FrameType> types() const {
    std::vector<FrameType> all;
    for (const Frame& frame : frames) all.push_back(frame.head.type);
    return all;
  }
};

SharedBuffer filled(std::size_t size, int value = 7) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>((static_cast<std::size_t>(value) + i * 31) & 0xff);
  return SharedBuffer(std::move(bytes));
}

/// A desk with two upload credits, updates of at most 300 000 bytes, and a grace time of 10 s.
class DeskTest : public ::testing::Test {
 protected:
  DeskTest() { open({}); }

  void open(const std::vector<ClientRecord>& known, const std::function<void(DeskOptions&)>& change = {}) {
    DeskOptions options;
    options.run = std::string(32, 'a');
    options.plan = "{}";
    options.shape = ExampleShape{{2, 3}, 4, 0};
    options.max_update_bytes = 300'000;
    options.grace_s = 10;
    if (change) change(options);
    desk_ = std::make_unique<Desk>(options, Desk::Outputs{[this](Delivery d) { delivered_.push_back(std::move(d)); }, [](const UploadPiece& piece) { piece.hash->add(piece.bytes); }, [this] { ++roster_changes_; }, [this] { ++credits_returned_; }}, known);
  }

  Hello hello() const {
    Hello hello;
    hello.software = "test";
    hello.examples = 10;
    hello.input = "2x3";
    hello.classes = 4;
    return hello;
  }

  std::shared_ptr<FakeLine> connect(const std::string& name) {
    auto line = std::make_shared<FakeLine>();
    EXPECT_FALSE(desk_->connect(line, name, hello(), 1000, 0));
    return line;
  }

  static Message task(std::uint32_t round, std::size_t bytes = 16, MessageType type = MessageType::train) {
    return Message(type, round, encode_header({{"round", round}}), filled(bytes));
  }
  void assign(ClientId client, const Message& message, Seconds now = 0) {
    std::optional<BlobReference> blob;
    if (message.body().size() > limits::kInlineBytes) blob = reference_to(message.body().span());
    desk_->assign(client, message, blob, now);
  }
  static std::uint64_t request_of(const FakeLine& line) {
    for (auto frame = line.frames.rbegin(); frame != line.frames.rend(); ++frame) {
      if (frame->head.type == FrameType::train || frame->head.type == FrameType::evaluate || frame->head.type == FrameType::secure_step) return frame->head.request;
    }
    return 0;
  }
  static Frame update(std::uint64_t request, std::uint32_t round, const SharedBuffer& body) {
    return frame_of(Message(MessageType::update, round, encode_header({{"round", round}}), body), request);
  }
  static Message secure(MessageType type, std::uint32_t step, std::size_t bytes, int value = 7) {
    SecureHeader header;
    header.round = 3;
    header.step = step;
    return encode_secure(type, header, filled(bytes, value));
  }
  static Message secure_step(std::uint32_t step, std::size_t bytes = 20) { return secure(MessageType::secure_step, step, bytes, static_cast<int>(step)); }
  /// The answer of `line`'s client to the task that it got last.
  void answer_secure(const FakeLine& line, std::uint32_t step, std::size_t bytes = 30) {
    desk_->answer(line, frame_of(secure(MessageType::secure_answer, step, bytes), request_of(line)), 2);
  }
  /// Sends `body` in chunks from `offset` on, up to `end`.
  void upload(const FakeLine& line, std::uint64_t request, const SharedBuffer& body, std::size_t offset, std::size_t end, std::size_t chunk = 100'000) {
    while (offset < end) {
      FrameHeader head;
      head.type = FrameType::chunk;
      head.request = request;
      head.body_bytes = static_cast<std::uint32_t>(std::min(chunk, end - offset));
      const Desk::Place place = desk_->chunk_place(line, head, offset);
      if (!place.bytes.empty()) std::memcpy(place.bytes.data(), body.span().data() + offset, head.body_bytes);
      desk_->chunk_done(line, 1);
      offset += head.body_bytes;
    }
  }
  RoundReport report(std::uint32_t round, std::vector<ClientOutcome> cohort) const {
    RoundReport report;
    report.round = round;
    report.cohort = std::move(cohort);
    return report;
  }

  std::vector<Delivery> delivered_;
  int roster_changes_ = 0;
  int credits_returned_ = 0;
  std::unique_ptr<Desk> desk_;
};

TEST_F(DeskTest, NumbersClientsInTheOrderOfTheirFirstHello) {
  const auto b = connect("b");
  const auto a = connect("a");
  EXPECT_EQ(parse_welcome(b->frames[0]).client, 0U);
  EXPECT_EQ(parse_welcome(a->frames[0]).client, 1U);
  EXPECT_THAT(desk_->ready(), ElementsAre(0, 1));
  const auto records = desk_->take_changed_records();
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].identity, "b");
  EXPECT_EQ(records[0].sessions, 1U);
  EXPECT_THAT(desk_->take_changed_records(), IsEmpty());
}

TEST_F(DeskTest, KeepsNumbersOverARestart) {
  ClientRecord known;
  known.id = 5;
  known.identity = "old";
  open({known});
  EXPECT_EQ(parse_welcome(connect("new")->frames[0]).client, 6U);
  EXPECT_EQ(parse_welcome(connect("old")->frames[0]).client, 5U);
}

TEST_F(DeskTest, ListedClientsHaveTheirPlaceAsNumberAndOthersStayOut) {
  open({}, [](DeskOptions& o) {
    o.listed = {"x", "y"};
    o.listed_only = true;
  });
  EXPECT_EQ(parse_welcome(connect("y")->frames[0]).client, 1U);
  auto line = std::make_shared<FakeLine>();
  const auto refused = desk_->connect(line, "z", hello(), 0, 0);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->code, Refusal::not_admitted);
  EXPECT_THAT(line->frames, IsEmpty());
}

TEST_F(DeskTest, AListThatContradictsTheRegistryIsRefused) {
  ClientRecord known;
  known.id = 0;
  known.identity = "first";
  EXPECT_THAT(test::error_of([&] { open({known}, [](DeskOptions& o) { o.listed = {"second"}; }); }), HasSubstr("client 0 is 'first'"));
}

TEST_F(DeskTest, RefusesDataThatDoNotFit) {
  auto line = std::make_shared<FakeLine>();
  Hello wrong = hello();
  wrong.input = "9";
  EXPECT_EQ(desk_->connect(line, "a", wrong, 0, 0)->code, Refusal::mismatch);
  wrong = hello();
  wrong.examples = 0;
  EXPECT_EQ(desk_->connect(line, "a", wrong, 0, 0)->code, Refusal::mismatch);
  wrong = hello();
  wrong.protocol = 99;
  EXPECT_EQ(desk_->connect(line, "a", wrong, 0, 0)->code, Refusal::protocol);
  EXPECT_EQ(desk_->registered(), 0U);
}

TEST_F(DeskTest, ThePlanIsSentUnlessTheClientHoldsIt) {
  EXPECT_EQ(parse_welcome(connect("a")->frames[0]).plan.size(), 2U);
  auto line = std::make_shared<FakeLine>();
  Hello again = hello();
  again.plan_sha256 = sha256_hex(std::as_bytes(std::span("{}", 2)));
  EXPECT_FALSE(desk_->connect(line, "a", again, 0, 0));
  EXPECT_EQ(parse_welcome(line->frames[0]).plan.size(), 0U);
}

TEST_F(DeskTest, ANewerConnectionFencesTheOlder) {
  const auto old = connect("a");
  assign(0, task(1));
  const std::uint64_t request = request_of(*old);
  const auto fresh = connect("a");
  EXPECT_TRUE(old->ended);
  EXPECT_EQ(parse_refused(old->frames.back()).code, Refusal::fenced);
  // The task moves to the newer connection with the same number; the older can do nothing more.
  EXPECT_EQ(request_of(*fresh), request);
  EXPECT_THROW(desk_->answer(*old, update(request, 1, filled(16)), 1), ProtocolError);
  desk_->disconnected(*old, 0, 0);
  EXPECT_THAT(desk_->ready(), ElementsAre(0));
  desk_->answer(*fresh, update(request, 1, filled(16)), 1);
  EXPECT_EQ(delivered_.size(), 1U);
}

TEST_F(DeskTest, AnAnswerIsDeliveredOnceAndSettledWhenItsRoundIsCommitted) {
  const auto line = connect("a");
  assign(0, task(3));
  const std::uint64_t request = request_of(*line);
  desk_->answer(*line, update(request, 3, filled(16)), 2);
  desk_->answer(*line, update(request, 3, filled(16)), 3);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.round, 3U);
  EXPECT_EQ(delivered_[0].arrival.time, 2);
  desk_->close_round(3, 4);
  EXPECT_EQ(delivered_.size(), 1U) << "an answered task does not come back as closed";
  EXPECT_NE(line->frames.back().head.type, FrameType::receipt);
  desk_->committed(report(3, {{0, Outcome::accepted}}));
  EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::accepted);
  EXPECT_EQ(line->frames.back().head.request, request);
}

TEST_F(DeskTest, AnUnknownRequestIsAnsweredWithAReceiptAndDeliversNothing) {
  const auto a = connect("a");
  const auto b = connect("b");
  assign(0, task(1));
  // b answers a's task: not its own, so it counts for nobody.
  desk_->answer(*b, update(request_of(*a), 1, filled(16)), 1);
  EXPECT_THAT(delivered_, IsEmpty());
  EXPECT_EQ(parse_receipt(b->frames.back()).outcome, Outcome::wrong_round);
}

TEST_F(DeskTest, AReceiptThatWasLostIsSentAgain) {
  const auto line = connect("a");
  assign(0, task(1));
  desk_->answer(*line, update(request_of(*line), 1, filled(16)), 1);
  desk_->disconnected(*line, 0, 1);
  desk_->committed(report(1, {{0, Outcome::accepted}}));
  const auto again = connect("a");
  EXPECT_THAT(again->types(), ElementsAre(FrameType::welcome, FrameType::receipt));
}

TEST_F(DeskTest, WhoeverIsAwayTooLongHasLeft) {
  const auto line = connect("a");
  assign(0, task(1));
  desk_->disconnected(*line, 0, 5);
  desk_->tick(14.9);
  EXPECT_THAT(delivered_, IsEmpty());
  desk_->tick(15);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.kind, Arrival::Kind::left);
  // Its answer of then is of no use any more.
  const auto again = connect("a");
  desk_->answer(*again, update(1, 1, filled(16)), 20);
  EXPECT_EQ(delivered_.size(), 1U);
}

TEST_F(DeskTest, WhoeverComesBackInTimeGetsTheSameTask) {
  const auto line = connect("a");
  assign(0, task(1));
  const std::uint64_t request = request_of(*line);
  desk_->disconnected(*line, 0, 5);
  const auto again = connect("a");
  EXPECT_EQ(request_of(*again), request);
  desk_->tick(100);
  EXPECT_THAT(delivered_, IsEmpty());
}

TEST_F(DeskTest, AGoodbyeIsLeavingAtOnce) {
  const auto line = connect("a");
  assign(0, task(1));
  desk_->goodbye(*line, 0, 2);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.kind, Arrival::Kind::left);
  EXPECT_THAT(desk_->ready(), IsEmpty());
}

TEST_F(DeskTest, ATaskForSomebodyUnknownIsAnsweredWithLeft) {
  assign(77, task(1));
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.kind, Arrival::Kind::left);
  EXPECT_EQ(delivered_[0].arrival.client, 77U);
}

TEST_F(DeskTest, ClosingARoundWithdrawsItsTasks) {
  const auto line = connect("a");
  assign(0, task(1));
  desk_->close_round(1, 9);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.kind, Arrival::Kind::closed);
  EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::late);
  EXPECT_TRUE(line->blob_stopped);
}

TEST_F(DeskTest, MeasuringIsSettledAtOnce) {
  const auto line = connect("a");
  assign(0, task(1, 16, MessageType::evaluate));
  desk_->answer(*line, update(request_of(*line), 1, SharedBuffer()), 1);
  EXPECT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(line->frames.back().head.type, FrameType::receipt);
}

// ---- secure aggregation ----

TEST_F(DeskTest, StepsOfSecureAggregationAreSettledAtOnceButTheLast) {
  const auto line = connect("a");
  for (std::uint32_t step = 1; step <= kSecureSteps; ++step) {
    assign(0, step == 1 ? task(3) : secure_step(step));
    const std::uint64_t request = request_of(*line);
    answer_secure(*line, step);
    ASSERT_EQ(delivered_.size(), step);
    EXPECT_EQ(delivered_.back().arrival.message->type(), MessageType::secure_answer);
    EXPECT_EQ(delivered_.back().arrival.message->body().size(), 30U);
    if (step == kSecureSteps) break;
    EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::accepted) << step;
    EXPECT_EQ(line->frames.back().head.request, request) << step;
    // It says the same again: the step is over.
    desk_->answer(*line, frame_of(secure(MessageType::secure_answer, step, 30), request), 2);
    EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::wrong_round) << step;
    EXPECT_EQ(delivered_.size(), step);
  }
  EXPECT_EQ(line->frames.back().head.type, FrameType::secure_step) << "the last answer waits for the commit";
  answer_secure(*line, kSecureSteps);
  EXPECT_EQ(delivered_.size(), kSecureSteps) << "a duplicate is ignored";
  desk_->close_round(3, 3);
  EXPECT_EQ(line->frames.back().head.type, FrameType::secure_step);
  desk_->committed(report(3, {{0, Outcome::not_summed}}));
  EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::not_summed);
}

TEST_F(DeskTest, TheStepOfATaskDecidesWhatIsSettledNotTheAnswers) {
  const auto line = connect("a");
  assign(0, secure_step(2));
  answer_secure(*line, 5);
  EXPECT_EQ(line->frames.back().head.type, FrameType::receipt);
  assign(0, secure_step(5));
  answer_secure(*line, 2);
  EXPECT_EQ(line->frames.back().head.type, FrameType::secure_step);
}

TEST_F(DeskTest, WhoeverRefusesAStepHearsOfTheRoundsOutcome) {
  const auto line = connect("a");
  assign(0, secure_step(3));
  desk_->answer(*line, frame_of(encode_failure(3, "the roster leaves this client out"), request_of(*line)), 2);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.message->type(), MessageType::failed);
  desk_->committed(report(3, {{0, Outcome::failed}}));
  EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::failed);
}

TEST_F(DeskTest, AnOpenStepComesAgainAfterAReconnect) {
  const auto line = connect("a");
  assign(0, secure_step(2));
  const std::uint64_t request = request_of(*line);
  desk_->disconnected(*line, 0, 5);
  const auto again = connect("a");
  ASSERT_THAT(again->types(), ElementsAre(FrameType::welcome, FrameType::secure_step));
  EXPECT_EQ(request_of(*again), request);
  EXPECT_EQ(parse_secure_header(message_of(again->frames.back(), {})).step, 2U);
  answer_secure(*again, 2);
  EXPECT_EQ(delivered_.size(), 1U);
  // A settled one does not: only its receipt, in case it was lost.
  desk_->disconnected(*again, 0, 6);
  EXPECT_THAT(connect("a")->types(), ElementsAre(FrameType::welcome, FrameType::receipt));
}

TEST_F(DeskTest, WhoeverIsAwayGetsTheNextStepWhenItReturns) {
  const auto line = connect("a");
  assign(0, secure_step(2));
  answer_secure(*line, 2);
  desk_->disconnected(*line, 0, 2);
  assign(0, secure_step(3), 3);
  const auto again = connect("a");
  EXPECT_THAT(again->types(), ElementsAre(FrameType::welcome, FrameType::secure_step)) << "the receipt of the step before is not needed any more";
  EXPECT_EQ(parse_secure_header(message_of(again->frames.back(), {})).step, 3U);
}

TEST_F(DeskTest, WhoeverIsAwayTooLongInAStepHasLeft) {
  const auto line = connect("a");
  assign(0, secure_step(4));
  desk_->disconnected(*line, 0, 5);
  desk_->tick(15);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.kind, Arrival::Kind::left);
  EXPECT_EQ(delivered_[0].arrival.round, 3U);
  EXPECT_THAT(connect("a")->types(), ElementsAre(FrameType::welcome));
}

TEST_F(DeskTest, ClosingARoundWithdrawsAnOpenStep) {
  const auto line = connect("a");
  assign(0, secure_step(4));
  const std::uint64_t request = request_of(*line);
  desk_->close_round(3, 9);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.kind, Arrival::Kind::closed);
  EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::late);
  // What was on its way counts nothing.
  desk_->answer(*line, frame_of(secure(MessageType::secure_answer, 4, 30), request), 10);
  EXPECT_EQ(parse_receipt(line->frames.back()).outcome, Outcome::wrong_round);
  EXPECT_EQ(delivered_.size(), 1U);
}

TEST_F(DeskTest, AStepsOwnBodyMayBeABlobThatNobodyElseGets) {
  const auto a = connect("a");
  const auto b = connect("b");
  const Message step = secure_step(2, 100'000);
  assign(0, step);
  assign(1, secure(MessageType::secure_step, 2, 100'000, 99));
  EXPECT_EQ(a->frames.back().head.flags, kFlagBlob);
  const Fetch fetch{reference_to(step.body().span()), 60'000};
  desk_->fetch(*b, 1, fetch);
  EXPECT_THAT(b->blob_offsets, IsEmpty());
  desk_->fetch(*a, 1, fetch);
  EXPECT_THAT(a->blob_offsets, ElementsAre(60'000));
  answer_secure(*a, 2);
  desk_->fetch(*a, 2, fetch);
  EXPECT_EQ(a->blob_offsets.size(), 1U) << "its task is settled";
}

TEST_F(DeskTest, AMaskedVectorIsUploadedAndSettledAtOnce) {
  const auto line = connect("a");
  assign(0, secure_step(3));
  const std::uint64_t request = request_of(*line);
  const Message answer = secure(MessageType::secure_answer, 3, 250'000);
  desk_->answer(*line, frame_of(answer, request), 1);
  EXPECT_EQ(parse_grant(line->frames.back()), 0U);
  upload(*line, request, answer.body(), 0, 100'000);
  desk_->disconnected(*line, 0, 2);
  const auto again = connect("a");
  desk_->answer(*again, frame_of(answer, request), 3);
  EXPECT_EQ(parse_grant(again->frames.back()), 100'000U);
  upload(*again, request, answer.body(), 100'000, 250'000);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].blob, reference_to(answer.body().span()));
  EXPECT_EQ(delivered_[0].hash->finish(), delivered_[0].blob->sha256);
  EXPECT_EQ(reference_to(delivered_[0].arrival.message->body().span()), reference_to(answer.body().span()));
  EXPECT_EQ(parse_receipt(again->frames.back()).outcome, Outcome::accepted);
}

TEST_F(DeskTest, WhatIsTooLongForSecureAggregationIsDeliveredWithoutItsBody) {
  const auto line = connect("a");
  assign(0, secure_step(3));
  answer_secure(*line, 3, 300'001);
  // Measuring has no large answer at all, and a step no update.
  assign(0, task(3, 16, MessageType::evaluate));
  answer_secure(*line, 1, 100'000);
  assign(0, secure_step(3));
  desk_->answer(*line, update(request_of(*line), 3, filled(100'000)), 2);
  ASSERT_EQ(delivered_.size(), 3U);
  for (const Delivery& delivery : delivered_) {
    EXPECT_EQ(delivery.arrival.message->body().size(), 0U);
    EXPECT_FALSE(delivery.blob);
  }
}

TEST_F(DeskTest, OnlyTheBlobOfTheCurrentTaskIsSent) {
  const auto line = connect("a");
  const Message message = task(1, 100'000);
  assign(0, message);
  EXPECT_EQ(line->frames.back().head.flags, kFlagBlob);
  Fetch fetch{reference_to(message.body().span()), 60'000};
  desk_->fetch(*line, 1, fetch);
  EXPECT_THAT(line->blob_offsets, ElementsAre(60'000));
  fetch.blob.sha256[0] ^= std::byte{1};
  desk_->fetch(*line, 2, fetch);
  EXPECT_EQ(line->blob_offsets.size(), 1U);
}

TEST_F(DeskTest, AnUploadIsGrantedReceivedAndDeliveredWithItsHash) {
  const auto line = connect("a");
  assign(0, task(1));
  const SharedBuffer body = filled(250'000);
  const std::uint64_t request = request_of(*line);
  desk_->answer(*line, update(request, 1, body), 1);
  EXPECT_EQ(parse_grant(line->frames.back()), 0U);
  upload(*line, request, body, 0, 250'000);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].blob, reference_to(body.span()));
  EXPECT_EQ(delivered_[0].hash->finish(), delivered_[0].blob->sha256);
  EXPECT_EQ(reference_to(delivered_[0].arrival.message->body().span()), reference_to(body.span()));
  EXPECT_EQ(credits_returned_, 0) << "the engine still holds the message";
  delivered_.clear();
  EXPECT_EQ(credits_returned_, 1);
}

TEST_F(DeskTest, ABrokenUploadGoesOnWhereItWas) {
  const auto line = connect("a");
  assign(0, task(1));
  const SharedBuffer body = filled(250'000);
  const std::uint64_t request = request_of(*line);
  desk_->answer(*line, update(request, 1, body), 1);
  upload(*line, request, body, 0, 200'000);
  desk_->disconnected(*line, 0, 2);
  const auto again = connect("a");
  desk_->answer(*again, update(request, 1, body), 3);
  EXPECT_EQ(parse_grant(again->frames.back()), 200'000U);
  upload(*again, request, body, 200'000, 250'000);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(reference_to(delivered_[0].arrival.message->body().span()), reference_to(body.span()));
}

TEST_F(DeskTest, CreditsBoundTheUploadsAndAreHandedOnInOrder) {
  std::vector<std::shared_ptr<FakeLine>> lines;
  const SharedBuffer body = filled(250'000);
  for (ClientId id = 0; id < 4; ++id) {
    lines.push_back(connect(std::string(1, static_cast<char>('a' + id))));
    assign(id, task(1));
    desk_->answer(*lines[id], update(request_of(*lines[id]), 1, body), 1);
  }
  EXPECT_EQ(lines[1]->frames.back().head.type, FrameType::grant);
  EXPECT_NE(lines[2]->frames.back().head.type, FrameType::grant);
  EXPECT_EQ(desk_->uploads_waiting(), 2U);
  upload(*lines[0], request_of(*lines[0]), body, 0, 250'000);
  desk_->credit_freed();
  EXPECT_NE(lines[2]->frames.back().head.type, FrameType::grant) << "the engine has not let go yet";
  delivered_.clear();
  desk_->credit_freed();
  EXPECT_EQ(lines[2]->frames.back().head.type, FrameType::grant);
  EXPECT_NE(lines[3]->frames.back().head.type, FrameType::grant);
}

TEST_F(DeskTest, AHalfUploadOfSomeoneAwayGivesWay) {
  std::vector<std::shared_ptr<FakeLine>> lines;
  const SharedBuffer body = filled(250'000);
  for (ClientId id = 0; id < 3; ++id) {
    lines.push_back(connect(std::string(1, static_cast<char>('a' + id))));
    assign(id, task(1));
    desk_->answer(*lines[id], update(request_of(*lines[id]), 1, body), 1);
  }
  upload(*lines[0], request_of(*lines[0]), body, 0, 100'000);
  desk_->disconnected(*lines[0], 0, 2);
  EXPECT_EQ(credits_returned_, 1);
  desk_->credit_freed();
  EXPECT_EQ(lines[2]->frames.back().head.type, FrameType::grant);
  // The one who was away begins anew when a credit is free.
  const auto again = connect("a");
  desk_->answer(*again, update(request_of(*again), 1, body), 3);
  upload(*lines[1], request_of(*lines[1]), body, 0, 250'000);
  delivered_.clear();
  desk_->credit_freed();
  EXPECT_EQ(parse_grant(again->frames.back()), 0U);
}

TEST_F(DeskTest, AnUploadThatCreepsLosesItsCreditToTheNext) {
  open({}, [](DeskOptions& options) {
    options.uploads = 1;
    options.minimum_bytes_per_s = 10'000;
  });
  const auto creeping = connect("a");
  const auto next = connect("b");
  assign(0, task(1));
  assign(1, task(1));
  const SharedBuffer body = filled(200'000);
  desk_->tick(100);
  desk_->answer(*creeping, update(request_of(*creeping), 1, body), 100);
  desk_->answer(*next, update(request_of(*next), 1, body), 101);
  upload(*creeping, request_of(*creeping), body, 0, 150'000);
  desk_->tick(130);  // 200 000 bytes at 10 000 a second, and 10 s
  EXPECT_FALSE(creeping->ended);
  desk_->tick(130.2);
  EXPECT_TRUE(creeping->ended);
  EXPECT_THAT(parse_refused(creeping->frames.back()).reason, HasSubstr("slower than 10000 bytes a second"));
  EXPECT_EQ(credits_returned_, 1);
  desk_->credit_freed();
  EXPECT_EQ(parse_grant(next->frames.back()), 0U);
}

TEST_F(DeskTest, AnUploadThatIsTooLongIsDeliveredWithoutItsBody) {
  const auto line = connect("a");
  assign(0, task(1));
  desk_->answer(*line, update(request_of(*line), 1, filled(300'001)), 1);
  ASSERT_EQ(delivered_.size(), 1U);
  EXPECT_EQ(delivered_[0].arrival.message->body().size(), 0U);
}

TEST_F(DeskTest, ChunksMustBeGrantedInOrderAndInside) {
  const auto line = connect("a");
  assign(0, task(1));
  const std::uint64_t request = request_of(*line);
  FrameHeader head;
  head.type = FrameType::chunk;
  head.request = request;
  head.body_bytes = 1000;
  EXPECT_THROW(desk_->chunk_place(*line, head, 0), ProtocolError);
  desk_->answer(*line, update(request, 1, filled(200'000)), 1);
  EXPECT_THROW(desk_->chunk_place(*line, head, 5), ProtocolError);
  head.body_bytes = 200'001;
  EXPECT_THROW(desk_->chunk_place(*line, head, 0), ProtocolError);
  head.body_bytes = 1000;
  head.request = request + 1;
  EXPECT_THROW(desk_->chunk_place(*line, head, 0), ProtocolError);
}

TEST_F(DeskTest, WhatIsOnItsWayWhenARoundClosesIsThrownAwayAndNoMore) {
  const auto line = connect("a");
  assign(0, task(1));
  const std::uint64_t request = request_of(*line);
  const SharedBuffer body = filled(250'000);
  desk_->answer(*line, update(request, 1, body), 1);
  FrameHeader head;
  head.type = FrameType::chunk;
  head.request = request;
  head.body_bytes = 100'000;
  const Desk::Place held = desk_->chunk_place(*line, head, 0);
  desk_->close_round(1, 2);
  // The memory of the chunk that is being read stays valid; what follows is not stored.
  std::memset(held.bytes.data(), 1, held.bytes.size());
  desk_->chunk_done(*line, 2);
  EXPECT_TRUE(desk_->chunk_place(*line, head, 100'000).bytes.empty());
  EXPECT_TRUE(desk_->chunk_place(*line, head, 200'000).bytes.empty());
  EXPECT_THROW(desk_->chunk_place(*line, head, 300'000), ProtocolError);
}

TEST_F(DeskTest, AClientThatIsNotReadyIsNotOnTheRoster) {
  const auto line = connect("a");
  desk_->heartbeat(*line, Heartbeat{false, 0});
  EXPECT_THAT(desk_->ready(), IsEmpty());
  EXPECT_EQ(desk_->connected(), 1U);
  desk_->heartbeat(*line, Heartbeat{true, 0});
  EXPECT_THAT(desk_->ready(), ElementsAre(0));
}

TEST_F(DeskTest, ChangesOfTheRosterAddUpToIt) {
  std::set<ClientId> copy;
  const auto follow = [&] {
    for (const auto& [id, is_ready] : desk_->take_ready_changes()) {
      EXPECT_EQ(is_ready, is_ready ? copy.insert(id).second : copy.erase(id) == 0) << id;
    }
    EXPECT_EQ(copy, desk_->ready());
  };
  const auto a = connect("a");
  const auto b = connect("b");
  follow();
  desk_->heartbeat(*a, Heartbeat{false, 0});
  follow();
  desk_->heartbeat(*a, Heartbeat{true, 0});
  desk_->heartbeat(*a, Heartbeat{true, 0});
  desk_->disconnected(*b, 0, 0);
  follow();
  const auto again = connect("a");  // takes over: no change
  EXPECT_THAT(desk_->take_ready_changes(), IsEmpty());
  desk_->disconnected(*a, 0, 0);
  EXPECT_THAT(desk_->take_ready_changes(), IsEmpty());
  desk_->goodbye(*again, 0, 0);
  follow();
  EXPECT_THAT(copy, IsEmpty());
}

}  // namespace
}  // namespace fl
