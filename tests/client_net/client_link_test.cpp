#include "client/net/client_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::string kPlan = R"({"the plan": 1})";
const std::string kRun(32, 'a');
const std::string kOtherRun(32, 'b');
constexpr std::uint64_t kModelBytes = 300'000;

SharedBuffer text_buffer(const std::string& text) { return SharedBuffer::copy_of(std::as_bytes(std::span(text))); }

/// `size` bytes that differ with `seed`.
SharedBuffer some_bytes(std::size_t size, unsigned seed = 1) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + seed * 7 + i / 251);
  return SharedBuffer(std::move(bytes));
}

/// Writes down what the link wants.
class Recorder final : public LinkEffects {
 public:
  struct Start {
    std::uint64_t serial;
    Message task;
  };
  struct Kept {
    StoredAnswer answer;
    SharedBuffer body;
  };

  void send(Frame frame) override { sent.push_back(std::move(frame)); }
  void prepare(std::uint64_t serial, const std::string& plan, const std::string& run, ClientId client, bool fresh) override {
    prepare_serial = serial;
    plans.push_back(plan);
    runs.push_back(run);
    clients.push_back(client);
    fresh_plans += fresh ? 1 : 0;
  }
  void open_blob(const BlobReference& blob, bool keep) override {
    opened.push_back(blob);
    opened_to_keep += keep ? 1 : 0;
  }
  void blob_grew(const std::shared_ptr<PartialBlob>& blob) override { grown = blob; }
  void start(std::uint64_t serial, const Message& task) override { starts.push_back({serial, task}); }
  void interrupt() override { ++interrupts; }
  void keep_answer(const StoredAnswer& answer, const SharedBuffer& body) override { kept.push_back({answer, body}); }
  void hash_answer(const StoredAnswer& answer, const SharedBuffer& body) override { hashed.push_back({answer, body}); }
  void load_body(const StoredAnswer& answer) override { loads.push_back(answer.key); }
  void forget_answer(const std::string& key) override { forgotten.push_back(key); }
  void note(const ClientEvent& event) override {
    events.push_back(event.name);
    texts.push_back(event.text);
  }

  /// What was sent since the last call, as names.
  std::vector<std::string> sent_names() {
    std::vector<std::string> names;
    for (const Frame& frame : sent) names.push_back(frame_type_name(static_cast<std::uint8_t>(frame.head.type)));
    sent.clear();
    return names;
  }

  std::vector<Frame> sent;
  std::uint64_t prepare_serial = 0;
  std::vector<std::string> plans;
  std::vector<std::string> runs;
  std::vector<ClientId> clients;
  int fresh_plans = 0;
  std::vector<BlobReference> opened;
  std::size_t opened_to_keep = 0;
  std::shared_ptr<PartialBlob> grown;
  std::vector<Start> starts;
  int interrupts = 0;
  std::vector<Kept> kept;
  std::vector<Kept> hashed;
  std::vector<std::string> loads;
  std::vector<std::string> forgotten;
  std::vector<std::string> events;
  std::vector<std::string> texts;  ///< of the events
};

class ClientLinkTest : public ::testing::Test {
 protected:
  ClientLinkTest() { restart(); }

  /// The program ends and begins again, with what the store kept.
  void restart(const std::string& plan = "", std::vector<StoredAnswer> answers = {}) {
    LinkProfile profile;
    profile.software = "test";
    profile.examples = 600;
    profile.tells_examples = true;
    profile.input = "1x28x28";
    profile.classes = 10;
    link.emplace(does, profile, plan, std::move(answers));
    does.sent.clear();
  }
  void welcome(const std::string& run = kRun, const std::string& plan = kPlan, ClientId client = 7) {
    Welcome welcome;
    welcome.run = run;
    welcome.client = client;
    welcome.heartbeat_s = 15;
    welcome.plan_sha256 = sha256_hex(std::as_bytes(std::span(kPlan)));
    welcome.plan = text_buffer(plan);
    link->on_frame(encode(welcome));
  }
  void prepared(const std::string& unfit = "") { link->on_prepared(does.prepare_serial, kModelBytes, unfit); }
  /// Connected and ready for tasks.
  void connect(const std::string& run = kRun) {
    const int before = static_cast<int>(does.plans.size());
    link->hello();
    welcome(run);
    if (static_cast<int>(does.plans.size()) > before) prepared();
    does.sent.clear();
  }
  void reconnect() {
    link->disconnected();
    connect();
  }

  Frame task(std::uint64_t request, std::uint32_t round, const SharedBuffer& weights, TaskKind kind = TaskKind::train) {
    return frame_of(encode_task({kind, round, round - 1, 99, weights}), request);
  }
  /// A step of secure aggregation in round 3.
  Frame step(std::uint64_t request, std::uint32_t number, const SharedBuffer& body) { return frame_of(encode_secure(MessageType::secure_step, secure_header(number), body), request); }
  static SecureHeader secure_header(std::uint32_t number) {
    SecureHeader header;
    header.round = 3;
    header.model_version = 2;
    header.fingerprint = 99;
    header.step = number;
    return header;
  }
  /// Finishes the work that was started last with the answer to a step; `train` is the first.
  void finish_step(std::uint32_t number, std::size_t answer_bytes = 1000) {
    link->on_answer(does.starts.back().serial, encode_secure(MessageType::secure_answer, secure_header(number), some_bytes(answer_bytes, number)), 0.1);
  }
  /// The hash that was asked for last is known.
  void hashed() {
    StoredAnswer answer = does.hashed.back().answer;
    answer.body = reference_to(does.hashed.back().body.span());
    link->on_answer_kept(answer);
  }
  void settle(std::uint64_t request, Outcome outcome = Outcome::accepted) { receive(encode(Receipt{outcome}, request, 3)); }
  /// Trains and takes the steps up to this one, each settled but the last.
  void take_steps(std::uint32_t last) {
    receive(task(1, 3, some_bytes(400)));
    for (std::uint32_t number = 1; number <= last; ++number) {
      if (number > 1) receive(step(number, number, some_bytes(40, number)));
      finish_step(number);
      if (number < last) settle(number);
    }
  }
  /// Finishes the work that was started last.
  void finish_work(std::size_t answer_bytes = 1000) {
    const Recorder::Start& start = does.starts.back();
    UpdateHeader header;
    header.round = start.task.round();
    header.codec = "identity";
    link->on_answer(start.serial, encode_update(header, some_bytes(answer_bytes, 5)), 1.5);
  }
  /// The store has written the answer that was given to it last.
  void stored() {
    StoredAnswer answer = does.kept.back().answer;
    answer.body = reference_to(does.kept.back().body.span());
    link->on_answer_kept(answer);
  }
  void receive(const Frame& frame) { link->on_frame(frame); }
  std::string error_for(const Frame& frame) {
    return test::error_of([&] { link->on_frame(frame); });
  }
  /// The store's answer to the last open_blob.
  std::shared_ptr<PartialBlob> open_part() {
    auto part = store.open_part(does.opened.back());
    link->on_blob_opened(part);
    return part;
  }
  /// A chunk of `blob` as it would come over the network.
  void chunk(std::uint64_t request, const SharedBuffer& blob, std::uint64_t offset, std::size_t size) {
    const Frame frame = encode_chunk(request, offset, blob.slice(static_cast<std::size_t>(offset), size));
    const ChunkTarget target = link->chunk_target(frame.head, parse_chunk(frame.head, frame.header.span()));
    if (target.blob) std::copy(frame.body.span().begin(), frame.body.span().end(), target.bytes.begin());
    link->on_chunk(target);
  }
  Fetch last_fetch() { return parse_fetch(does.sent.back()); }

  Recorder does;
  StateFolder store{"", 0};
  std::optional<ClientLink> link;
};

TEST_F(ClientLinkTest, IntroducesItselfAndGetsReadyByThePlan) {
  const Hello hello = parse_hello(link->hello());
  EXPECT_EQ(hello.examples, 600U);
  EXPECT_EQ(hello.input, "1x28x28");
  EXPECT_EQ(hello.plan_sha256, "");
  EXPECT_TRUE(hello.ready);
  welcome();
  EXPECT_THAT(does.plans, ElementsAre(kPlan));
  EXPECT_THAT(does.clients, ElementsAre(7U));
  EXPECT_THAT(does.runs, ElementsAre(kRun));
  EXPECT_EQ(does.fresh_plans, 1);
  EXPECT_TRUE(link->welcomed());
  EXPECT_EQ(link->heartbeat_s(), 15U);
}

TEST_F(ClientLinkTest, KeepsItsPlanAndPreparationOverConnections) {
  connect();
  link->disconnected();
  const Hello hello = parse_hello(link->hello());
  EXPECT_EQ(hello.plan_sha256, sha256_hex(std::as_bytes(std::span(kPlan))));
  welcome(kRun, "");
  EXPECT_EQ(does.plans.size(), 1U);

  restart(kPlan);
  link->hello();
  welcome(kRun, "");
  EXPECT_EQ(does.plans.size(), 2U);
  EXPECT_EQ(does.fresh_plans, 1) << "the second one was on disk already";
}

TEST_F(ClientLinkTest, RefusesAWelcomeWithoutThePlanOrWithAnotherOne) {
  link->hello();
  EXPECT_THAT(test::error_of([&] { welcome(kRun, ""); }), HasSubstr("sent no plan"));
  link->hello();
  EXPECT_THAT(test::error_of([&] { welcome(kRun, "{}"); }), HasSubstr("does not have the hash"));
  EXPECT_FALSE(link->welcomed());
}

TEST_F(ClientLinkTest, RefusesEverythingElseBeforeTheWelcomeAndAfterTheEnd) {
  EXPECT_THAT(error_for(encode_heartbeat_reply(1)), HasSubstr("where it does not belong"));
  link->hello();
  EXPECT_THAT(error_for(task(1, 1, some_bytes(40))), HasSubstr("'train' before its welcome"));
  EXPECT_THAT(error_for(encode_grant(1, 0)), HasSubstr("before its welcome"));
  welcome();
  EXPECT_THAT(error_for(encode(Welcome{})), HasSubstr("'welcome' where it does not belong"));
  EXPECT_THAT(error_for(encode(Heartbeat{}, 1)), HasSubstr("'heartbeat'"));
  receive(encode(Goodbye{"restarting", 5, false}));
  EXPECT_THAT(error_for(task(1, 1, some_bytes(40))), HasSubstr("where it does not belong"));
}

TEST_F(ClientLinkTest, TellsWhyTheServerEndedTheConnection) {
  link->hello();
  receive(encode(Refused{Refusal::not_admitted, "unknown client", 0}));
  ASSERT_TRUE(link->ended());
  EXPECT_EQ(link->ended()->kind, LinkEnd::Kind::refused);
  EXPECT_EQ(link->ended()->reason, "unknown client");
  EXPECT_TRUE(link->ended()->final());

  link->disconnected();
  link->hello();
  EXPECT_FALSE(link->ended());
  receive(encode(Goodbye{"the run is over", 3, true}));
  EXPECT_TRUE(link->ended()->finished);
  EXPECT_EQ(link->ended()->retry_s, 3U);
  EXPECT_FALSE(link->ended()->final());
}

TEST_F(ClientLinkTest, GivesUpOnlyWhereTheOperatorHasToAct) {
  const auto final = [](Refusal code, std::uint32_t retry_s) {
    LinkEnd end;
    end.kind = LinkEnd::Kind::refused;
    end.code = code;
    end.retry_s = retry_s;
    return end.final();
  };
  for (const Refusal code : {Refusal::not_admitted, Refusal::mismatch, Refusal::revoked, Refusal::protocol}) {
    EXPECT_TRUE(final(code, 0));
    EXPECT_FALSE(final(code, 10));
  }
  for (const Refusal code : {Refusal::busy, Refusal::fenced, Refusal::flood}) EXPECT_FALSE(final(code, 0));
}

TEST_F(ClientLinkTest, AnswersATaskAndForgetsItWhenItIsSettled) {
  connect();
  const SharedBuffer weights = some_bytes(400);
  receive(task(11, 3, weights));
  ASSERT_EQ(does.starts.size(), 1U);
  EXPECT_EQ(does.starts[0].task.round(), 3U);
  EXPECT_EQ(sha256_hex(does.starts[0].task.body().span()), sha256_hex(weights.span()));
  EXPECT_TRUE(link->training());

  finish_work();
  EXPECT_FALSE(link->training());
  EXPECT_THAT(does.sent_names(), IsEmpty()) << "it is offered only once it is stored";
  stored();
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.type, FrameType::update);
  EXPECT_EQ(does.sent[0].head.request, 11U);
  EXPECT_EQ(does.sent[0].body.size(), 1000U);

  EXPECT_THAT(does.forgotten, IsEmpty());
  receive(encode(Receipt{Outcome::accepted}, 11, 3));
  EXPECT_THAT(does.forgotten, ElementsAre(does.kept[0].answer.key));
  EXPECT_EQ(link->answers(), 0U);
}

TEST_F(ClientLinkTest, HoldsTasksUntilThePlanIsReady) {
  link->hello();
  welcome();
  receive(task(1, 1, some_bytes(40)));
  EXPECT_THAT(does.starts, IsEmpty());
  prepared();
  EXPECT_EQ(does.starts.size(), 1U);
}

TEST_F(ClientLinkTest, IgnoresAPreparationThatANewerPlanOvertook) {
  link->hello();
  welcome();
  const std::uint64_t first = does.prepare_serial;
  link->disconnected();
  link->hello();
  welcome(kOtherRun);
  receive(task(1, 1, some_bytes(40)));
  link->on_prepared(first, kModelBytes, "");
  EXPECT_THAT(does.starts, IsEmpty());
  prepared();
  EXPECT_EQ(does.starts.size(), 1U);
}

TEST_F(ClientLinkTest, WorksOnOneTaskAfterTheOther) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  receive(task(2, 3, some_bytes(400), TaskKind::evaluate));
  EXPECT_EQ(does.starts.size(), 1U);
  finish_work();
  ASSERT_EQ(does.starts.size(), 2U);
  EXPECT_EQ(does.starts[1].task.type(), MessageType::evaluate);
}

TEST_F(ClientLinkTest, RefusesMoreTasksThanAnyServerNeeds) {
  connect();
  for (std::uint32_t i = 1; i <= ClientLink::kTasks; ++i) receive(task(i, i, some_bytes(40, i)));
  EXPECT_THAT(error_for(task(9, 9, some_bytes(40, 9))), HasSubstr("more than 4 tasks"));
}

TEST_F(ClientLinkTest, TakesARepeatedTaskForOneAndRefusesANumberForTwo) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  receive(task(1, 3, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 1U);
  EXPECT_THAT(error_for(task(1, 4, some_bytes(400))), HasSubstr("request 1 stands for two tasks"));
  finish_work();
  stored();
  receive(task(1, 3, some_bytes(400)));
  EXPECT_EQ(does.sent_names().size(), 1U);
  EXPECT_THAT(error_for(task(1, 3, some_bytes(400, 2))), HasSubstr("stands for two tasks"));
}

// ---- weights ----

TEST_F(ClientLinkTest, FetchesLargeWeightsAndTrainsOnThem) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  ASSERT_EQ(does.opened.size(), 1U);
  EXPECT_EQ(does.opened[0], reference_to(weights.span()));
  EXPECT_EQ(does.opened_to_keep, 1U);
  const auto part = open_part();
  EXPECT_EQ(last_fetch().offset, 0U);
  EXPECT_EQ(last_fetch().blob, reference_to(weights.span()));
  const std::uint64_t request = does.sent.back().head.request;

  chunk(request, weights, 0, 100'000);
  EXPECT_EQ(does.grown, part);
  chunk(request, weights, 100'000, 200'000);
  EXPECT_THAT(does.starts, IsEmpty()) << "the hash is checked first";
  const auto blob = store.finish(part);
  ASSERT_TRUE(blob);
  link->on_blob_ready(part->reference(), *blob);
  ASSERT_EQ(does.starts.size(), 1U);
  EXPECT_EQ(reference_to(does.starts[0].task.body().span()), reference_to(weights.span()));
}

TEST_F(ClientLinkTest, DoesNotFetchWhatItHolds) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  link->on_blob_ready(reference_to(weights.span()), weights);
  EXPECT_EQ(does.starts.size(), 1U);
  EXPECT_THAT(does.sent_names(), IsEmpty());
}

TEST_F(ClientLinkTest, GoesOnWithAFetchAfterABreak) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  open_part();
  chunk(does.sent.back().head.request, weights, 0, 123'456);
  reconnect();
  receive(task(1, 3, weights));
  ASSERT_EQ(does.opened.size(), 2U);
  open_part();
  EXPECT_EQ(last_fetch().offset, 123'456U);
}

TEST_F(ClientLinkTest, ChecksAPartThatWasCompleteBeforeTheBreak) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  const auto part = open_part();
  chunk(does.sent.back().head.request, weights, 0, kModelBytes);
  reconnect();
  receive(task(1, 3, weights));
  does.grown.reset();
  open_part();
  EXPECT_EQ(does.grown, part);
  EXPECT_THAT(does.sent_names(), IsEmpty());
}

TEST_F(ClientLinkTest, RefusesChunksThatDoNotContinueTheBlob) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  const SharedBuffer more = some_bytes(kModelBytes + 1);
  receive(task(1, 3, weights));
  open_part();
  const std::uint64_t request = does.sent.back().head.request;
  chunk(request, weights, 0, 1000);
  EXPECT_THAT(test::error_of([&] { chunk(request, weights, 0, 1000); }), HasSubstr("expected the blob's bytes from 1000 to 300000"));
  EXPECT_THAT(test::error_of([&] { chunk(request, weights, 2000, 1000); }), HasSubstr("at 2000"));
  EXPECT_THAT(test::error_of([&] { chunk(request, more, 1000, kModelBytes - 999); }), HasSubstr("expected the blob's bytes"));
  EXPECT_THAT(test::error_of([&] { chunk(request + 1, weights, 1000, 1000); }), HasSubstr("nobody asked for"));
  chunk(request, weights, 1000, kModelBytes - 1000);
  EXPECT_THAT(test::error_of([&] { chunk(request, weights, 0, 1); }), HasSubstr("nobody asked for"));
}

TEST_F(ClientLinkTest, RefusesABlobThatIsLargerThanAnyTasks) {
  connect();
  EXPECT_THAT(error_for(task(1, 3, some_bytes(kModelBytes + 4))), HasSubstr("refers to 300004 bytes, no task of the plan has more than 300000"));
  EXPECT_THAT(error_for(step(2, 2, some_bytes(kModelBytes + 4))), HasSubstr("refers to 300004 bytes"));
  EXPECT_THAT(does.opened, IsEmpty());
}

TEST_F(ClientLinkTest, FetchesDamagedWeightsAgainOnceFromTheBeginning) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  for (int attempt = 0; attempt < 2; ++attempt) {
    const auto part = open_part();
    EXPECT_EQ(last_fetch().offset, 0U);
    chunk(does.sent.back().head.request, some_bytes(kModelBytes, 2), 0, kModelBytes);
    ASSERT_FALSE(store.finish(part));
    const auto wrong = [&] { link->on_blob_wrong(part->reference()); };
    if (attempt == 0) wrong();
    if (attempt == 1) {
      EXPECT_THAT(test::error_of(wrong), HasSubstr("do not have the hash"));
    }
  }
  EXPECT_THAT(does.starts, IsEmpty());
}

TEST_F(ClientLinkTest, ThrowsAwayWhatIsOnItsWayOfAWithdrawnTask) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  const auto part = open_part();
  const std::uint64_t request = does.sent.back().head.request;
  chunk(request, weights, 0, 100'000);
  receive(encode(Receipt{Outcome::late}, 1, 3));
  chunk(request, weights, 100'000, 150'000);
  EXPECT_EQ(part->received.load(), 100'000U);
  EXPECT_THAT(test::error_of([&] { chunk(request, weights, 0, 50'001); }), HasSubstr("nobody asked for"));
  chunk(request, weights, 250'000, 50'000);
  EXPECT_THAT(test::error_of([&] { chunk(request, weights, 0, 1); }), HasSubstr("nobody asked for"));
}

TEST_F(ClientLinkTest, CountsAChunkThatWasBeingReadWhenItsTaskWasWithdrawn) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  const auto part = open_part();
  const Frame frame = encode_chunk(does.sent.back().head.request, 0, weights.slice(0, 100'000));
  const ChunkTarget target = link->chunk_target(frame.head, 0);
  link->on_policy(false, "on battery power");
  link->on_chunk(target);
  EXPECT_EQ(part->received.load(), 0U);
  EXPECT_THAT(test::error_of([&] { chunk(frame.head.request, weights, 0, 200'001); }), HasSubstr("nobody asked for"));
  chunk(frame.head.request, weights, 100'000, 200'000);
}

TEST_F(ClientLinkTest, GivesUpAServerThatDoesNotSendWhatItWasAskedFor) {
  connect();
  const SharedBuffer weights = some_bytes(kModelBytes);
  receive(task(1, 3, weights));
  open_part();
  const std::uint64_t request = does.sent.back().head.request;
  for (int i = 0; i < ClientLink::kSilentBeats; ++i) link->heartbeat();
  chunk(request, weights, 0, 1000);
  for (int i = 0; i < ClientLink::kSilentBeats; ++i) link->heartbeat();
  EXPECT_THAT(test::error_of([&] { link->heartbeat(); }), HasSubstr("does not send what it was asked for"));
}

TEST_F(ClientLinkTest, SaysThatThereIsNoRoomForTheWeights) {
  connect();
  receive(task(1, 3, some_bytes(kModelBytes)));
  link->on_blob_refused(does.opened.back(), "no memory for the model");
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(parse_failure(message_of(does.sent[0], {})), "no memory for the model");
  receive(task(2, 4, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 1U);
}

// ---- one answer over several connections ----

TEST_F(ClientLinkTest, GoesOnTrainingWhenTheTaskComesAgain) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  reconnect();
  EXPECT_EQ(does.interrupts, 0);
  receive(task(21, 3, some_bytes(400)));  // a restarted server numbers anew
  EXPECT_EQ(does.starts.size(), 1U);
  finish_work();
  stored();
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.request, 21U);
}

TEST_F(ClientLinkTest, DeliversWhatWasFinishedWhileItWasAway) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  link->disconnected();
  finish_work();
  stored();
  EXPECT_THAT(does.sent_names(), IsEmpty());
  connect();
  EXPECT_THAT(does.sent_names(), IsEmpty()) << "the server asks first";
  receive(task(1, 3, some_bytes(400)));
  EXPECT_THAT(does.sent_names(), ElementsAre("update"));
  EXPECT_EQ(does.starts.size(), 1U);
}

TEST_F(ClientLinkTest, DeliversAnAnswerAgainInEachConnectionUntilItIsSettled) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  stored();
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(does.sent_names(), ElementsAre("update"));
    reconnect();
    receive(task(1, 3, some_bytes(400)));
  }
  EXPECT_EQ(does.starts.size(), 1U);
  EXPECT_EQ(does.kept.size(), 1U);
}

TEST_F(ClientLinkTest, DeliversAStoredAnswerAfterARestartOfTheProgram) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  stored();
  StoredAnswer answer = does.kept[0].answer;
  answer.body = reference_to(does.kept[0].body.span());
  restart(kPlan, {answer});
  connect();
  receive(task(1, 3, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 1U) << "the training before the restart";
  EXPECT_THAT(does.loads, ElementsAre(answer.key));
  EXPECT_THAT(does.sent_names(), IsEmpty());
  link->on_body_loaded(answer.key, does.kept[0].body);
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].body.size(), 1000U);
}

TEST_F(ClientLinkTest, TrainsAgainWhenAnythingOfTheTaskDiffers) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  stored();
  receive(task(2, 3, some_bytes(400, 2)));  // other weights
  ASSERT_EQ(does.starts.size(), 2U);
  finish_work();
  receive(frame_of(encode_task({TaskKind::train, 3, 9, 99, some_bytes(400)}), 3));  // another version
  ASSERT_EQ(does.starts.size(), 3U);
  finish_work();
  receive(task(4, 3, some_bytes(400), TaskKind::evaluate));
  EXPECT_EQ(does.starts.size(), 4U);
}

TEST_F(ClientLinkTest, DropsAnswersOfAnotherRun) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  stored();
  link->disconnected();
  connect(kOtherRun);
  EXPECT_THAT(does.forgotten, ElementsAre(does.kept[0].answer.key));
  receive(task(1, 3, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 2U);
}

TEST_F(ClientLinkTest, InterruptsTheWorkOfAnotherRun) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  link->disconnected();
  connect(kOtherRun);
  EXPECT_EQ(does.interrupts, 1);
  receive(task(1, 3, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 1U) << "the worker has not ended yet";
  link->on_interrupted(does.starts[0].serial);
  EXPECT_EQ(does.starts.size(), 2U);
  EXPECT_THAT(does.sent_names(), IsEmpty());
}

TEST_F(ClientLinkTest, LeavesWorkThatTheServerNoLongerNames) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  reconnect();
  receive(task(2, 4, some_bytes(400)));
  EXPECT_EQ(does.interrupts, 1);
  // It was done all the same when it was interrupted: nobody wants it.
  finish_work();
  EXPECT_THAT(does.kept, IsEmpty());
  ASSERT_EQ(does.starts.size(), 2U);
  EXPECT_EQ(does.starts[1].task.round(), 4U);
}

TEST_F(ClientLinkTest, DropsAnAnswerOnceALaterRoundHasBegunWithoutIt) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  stored();
  reconnect();
  receive(task(2, 4, some_bytes(400)));
  EXPECT_THAT(does.forgotten, ElementsAre(does.kept[0].answer.key));
}

TEST_F(ClientLinkTest, KeepsAtMostSoManyAnswers) {
  connect();
  for (std::uint32_t i = 1; i <= ClientLink::kAnswers + 1; ++i) {
    receive(task(i, 3, some_bytes(400, i)));
    finish_work();
    stored();
  }
  EXPECT_EQ(link->answers(), ClientLink::kAnswers);
  EXPECT_THAT(does.forgotten, ElementsAre(does.kept[0].answer.key));
}

TEST_F(ClientLinkTest, SettlesByAReceiptThatComesWithANewConnection) {
  connect();
  receive(task(5, 3, some_bytes(400)));
  finish_work();
  stored();
  reconnect();
  receive(encode(Receipt{Outcome::accepted}, 5, 4));
  EXPECT_EQ(link->answers(), 1U) << "another round's request of that number";
  receive(encode(Receipt{Outcome::accepted}, 5, 3));
  EXPECT_EQ(link->answers(), 0U);
}

TEST_F(ClientLinkTest, StopsTrainingWhenTheRoundIsOver) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  receive(task(2, 4, some_bytes(400)));
  receive(encode(Receipt{Outcome::late}, 1, 3));
  EXPECT_EQ(does.interrupts, 1);
  link->on_interrupted(does.starts[0].serial);
  EXPECT_EQ(does.starts.size(), 2U);
  EXPECT_THAT(does.sent_names(), IsEmpty());
  receive(encode(Receipt{Outcome::failed}, 77, 9));  // of a task that is long forgotten
}

// ---- updates ----

TEST_F(ClientLinkTest, SendsALargeUpdateFromTheGrantedOffsetOn) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  const std::size_t size = ClientLink::kUploadChunk + 500;
  finish_work(size);
  EXPECT_FALSE(link->next_chunk());
  stored();
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.flags, kFlagBlob);
  EXPECT_EQ(parse_blob_reference(does.sent[0].body.span()), reference_to(does.kept[0].body.span()));
  EXPECT_FALSE(link->next_chunk());

  receive(encode_grant(1, 0));
  auto first = link->next_chunk();
  ASSERT_TRUE(first);
  EXPECT_EQ(first->head.request, 1U);
  EXPECT_EQ(parse_chunk(first->head, first->header.span()), 0U);
  EXPECT_EQ(first->body.size(), ClientLink::kUploadChunk);
  auto second = link->next_chunk();
  ASSERT_TRUE(second);
  EXPECT_EQ(parse_chunk(second->head, second->header.span()), ClientLink::kUploadChunk);
  EXPECT_EQ(second->body.size(), 500U);
  EXPECT_FALSE(link->next_chunk());

  // After a break the server holds a part.
  reconnect();
  EXPECT_FALSE(link->next_chunk());
  receive(task(1, 3, some_bytes(400)));
  receive(encode_grant(1, ClientLink::kUploadChunk + 100));
  auto rest = link->next_chunk();
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->body.size(), 400U);
  EXPECT_EQ(reference_to(rest->body.span()), reference_to(does.kept[0].body.slice(size - 400, 400).span()));
}

TEST_F(ClientLinkTest, SendsNothingWhenTheServerHoldsItAll) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work(100'000);
  stored();
  receive(encode_grant(1, 100'000));
  EXPECT_FALSE(link->next_chunk());
}

TEST_F(ClientLinkTest, LoadsALargeAnswerOnlyWhenItIsGranted) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work(100'000);
  StoredAnswer answer = does.kept[0].answer;
  answer.body = reference_to(does.kept[0].body.span());
  restart(kPlan, {answer});
  connect();
  receive(task(1, 3, some_bytes(400)));
  EXPECT_THAT(does.sent_names(), ElementsAre("update"));
  EXPECT_THAT(does.loads, IsEmpty());
  receive(encode_grant(1, 99'000));
  EXPECT_EQ(does.loads.size(), 1U);
  EXPECT_FALSE(link->next_chunk());
  link->on_body_loaded(answer.key, does.kept[0].body);
  auto rest = link->next_chunk();
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->body.size(), 1000U);
}

TEST_F(ClientLinkTest, SaysThatAStoredAnswerIsLost) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  StoredAnswer answer = does.kept[0].answer;
  answer.body = reference_to(does.kept[0].body.span());
  restart(kPlan, {answer});
  connect();
  receive(task(1, 3, some_bytes(400)));
  link->on_body_lost(answer.key, "damaged");
  EXPECT_THAT(does.sent_names(), ElementsAre("failed"));
  EXPECT_EQ(link->answers(), 0U);
}

TEST_F(ClientLinkTest, RefusesGrantsOfWhatWasNotOffered) {
  connect();
  EXPECT_THAT(error_for(encode_grant(1, 0)), HasSubstr("was not offered"));
  receive(task(1, 3, some_bytes(400)));
  EXPECT_THAT(error_for(encode_grant(1, 0)), HasSubstr("was not offered"));
  finish_work(100'000);
  EXPECT_THAT(error_for(encode_grant(1, 0)), HasSubstr("was not offered"));
  stored();
  EXPECT_THAT(error_for(encode_grant(1, 100'001)), HasSubstr("grants 100001"));
  receive(task(2, 3, some_bytes(400, 2)));
  finish_work(500);
  stored();
  EXPECT_THAT(error_for(encode_grant(2, 0)), HasSubstr("was not offered")) << "it went inline";
}

TEST_F(ClientLinkTest, StopsAnUploadThatIsSettled) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work(600'000);
  stored();
  receive(encode_grant(1, 0));
  EXPECT_TRUE(link->next_chunk());
  receive(encode(Receipt{Outcome::late}, 1, 3));
  EXPECT_FALSE(link->next_chunk());
}

// ---- what cannot be done ----

TEST_F(ClientLinkTest, SaysWhyATaskFailed) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  link->on_failed(does.starts[0].serial, "out of memory while training");
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.request, 1U);
  EXPECT_EQ(parse_failure(message_of(does.sent[0], {})), "out of memory while training");
  EXPECT_THAT(does.kept, IsEmpty());
  // It is tried again when it comes again.
  reconnect();
  receive(task(1, 3, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 2U);
}

TEST_F(ClientLinkTest, DropsAServerThatSendsAMalformedTask) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  EXPECT_THAT(test::error_of([&] { link->on_malformed(does.starts[0].serial, "malformed task: …"); }), HasSubstr("malformed task"));
  reconnect();
  receive(task(2, 3, some_bytes(400)));
  receive(encode(Receipt{Outcome::late}, 2, 3));
  link->on_malformed(does.starts[1].serial, "nobody waits for it any more");
}

TEST_F(ClientLinkTest, RefusesAPlanItCannotFollowAndSaysSoOnce) {
  link->hello();
  welcome();
  prepared("the plan needs 3 GB");
  receive(task(1, 3, some_bytes(400)));
  ASSERT_EQ(does.sent.size(), 2U);
  EXPECT_EQ(parse_failure(message_of(does.sent[0], {})), "the plan needs 3 GB");
  EXPECT_FALSE(parse_heartbeat(does.sent[1]).ready);
  does.sent.clear();
  receive(task(2, 4, some_bytes(400)));
  EXPECT_THAT(does.sent_names(), ElementsAre("failed"));
  EXPECT_THAT(does.starts, IsEmpty());
}

// ---- the owner of the machine ----

TEST_F(ClientLinkTest, StopsTrainingWhenItIsNoLongerAllowed) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  receive(task(2, 3, some_bytes(400), TaskKind::evaluate));
  link->on_policy(false, "on battery power");
  EXPECT_EQ(does.interrupts, 1);
  ASSERT_EQ(does.sent.size(), 2U);
  EXPECT_FALSE(parse_heartbeat(does.sent[0]).ready);
  EXPECT_EQ(parse_failure(message_of(does.sent[1], {})), "not training now: on battery power") << "of the one that waited";
  does.sent.clear();
  link->on_policy(false, "on battery power");
  EXPECT_THAT(does.sent_names(), IsEmpty());

  link->on_interrupted(does.starts[0].serial);
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(parse_failure(message_of(does.sent[0], {})), "training stopped: on battery power");
  EXPECT_EQ(does.sent[0].head.request, 1U);
  does.sent.clear();

  receive(task(3, 4, some_bytes(400)));
  EXPECT_THAT(does.sent_names(), ElementsAre("failed"));
  link->on_policy(true, "");
  EXPECT_THAT(does.sent_names(), ElementsAre("heartbeat"));
  receive(task(4, 5, some_bytes(400)));
  EXPECT_EQ(does.starts.size(), 2U);
}

TEST_F(ClientLinkTest, DeliversAnAnswerThatWasReadyBeforeItWasStopped) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  link->on_policy(false, "on battery power");
  does.sent.clear();
  finish_work();
  stored();
  EXPECT_THAT(does.sent_names(), ElementsAre("update"));
}

TEST_F(ClientLinkTest, TellsTheNextServerThatItMayNotTrain) {
  link->on_policy(false, "load 3 is above the limit 1");
  EXPECT_FALSE(parse_hello(link->hello()).ready);
  EXPECT_THAT(does.sent_names(), IsEmpty());
}

TEST_F(ClientLinkTest, SaysGoodbyeAndKeepsItsAnswers) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  finish_work();
  stored();
  receive(task(2, 3, some_bytes(400), TaskKind::evaluate));
  const Goodbye goodbye = parse_goodbye(link->goodbye("stopped by SIGTERM"));
  EXPECT_EQ(goodbye.reason, "stopped by SIGTERM");
  EXPECT_EQ(does.interrupts, 1);
  EXPECT_THAT(does.forgotten, IsEmpty());
  EXPECT_EQ(link->answers(), 1U);
}

// ---- secure aggregation ----

TEST_F(ClientLinkTest, TakesTheStepsOfSecureAggregationAndKeepsNothingOfThemOnDisk) {
  connect();
  take_steps(kSecureSteps);
  EXPECT_EQ(does.starts.size(), kSecureSteps);
  EXPECT_EQ(does.starts[1].task.type(), MessageType::secure_step);
  EXPECT_EQ(sha256_hex(does.starts[1].task.body().span()), sha256_hex(some_bytes(40, 2).span()));
  EXPECT_THAT(does.sent_names(), ElementsAre("secure_answer", "secure_answer", "secure_answer", "secure_answer", "secure_answer"));
  settle(kSecureSteps);
  EXPECT_EQ(link->answers(), 0U);
  EXPECT_THAT(does.kept, IsEmpty());
  EXPECT_THAT(does.forgotten, IsEmpty()) << "there is nothing on disk to forget";
  EXPECT_THAT(does.loads, IsEmpty());
}

TEST_F(ClientLinkTest, SaysWhichStepItTakesAndSettlesOnlyTheLastAloud) {
  connect();
  does.events.clear();
  does.texts.clear();
  take_steps(kSecureSteps);
  settle(kSecureSteps, Outcome::not_summed);
  EXPECT_THAT(does.events, ElementsAre("training", "trained", "sent", "secure_step", "sent", "secure_step", "sent", "secure_step", "sent", "secure_step", "sent", "settled"));
  EXPECT_EQ(does.texts[3], "round 3: secure aggregation, step 2 of 5");
  EXPECT_EQ(does.texts.back(), "round 3: not counted (not_summed)");
}

TEST_F(ClientLinkTest, SaysThatItCountedWhenTheLastStepIsAccepted) {
  connect();
  take_steps(kSecureSteps);
  settle(kSecureSteps);
  EXPECT_EQ(does.texts.back(), "round 3: counted");
}

TEST_F(ClientLinkTest, SaysWhenAStepWasInVain) {
  connect();
  take_steps(3);
  does.texts.clear();
  settle(3, Outcome::late);
  EXPECT_THAT(does.texts, ElementsAre("round 3: not counted (late)"));
}

TEST_F(ClientLinkTest, OffersTheAnswerToAStepAgainAfterABreakAndComputesItOnce) {
  connect();
  take_steps(2);
  does.sent.clear();
  reconnect();
  EXPECT_THAT(does.sent_names(), IsEmpty()) << "the server asks first";
  receive(step(22, 2, some_bytes(40, 2)));
  EXPECT_EQ(does.starts.size(), 2U);
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.request, 22U);
  EXPECT_EQ(reference_to(does.sent[0].body.span()), reference_to(some_bytes(1000, 2).span()));
}

TEST_F(ClientLinkTest, GoesOnWithAStepWhenItComesAgain) {
  connect();
  take_steps(1);
  settle(1);
  receive(step(2, 2, some_bytes(40, 2)));
  does.sent.clear();
  reconnect();
  EXPECT_EQ(does.interrupts, 0);
  receive(step(2, 2, some_bytes(40, 2)));
  EXPECT_EQ(does.starts.size(), 2U);
  finish_step(2);
  EXPECT_THAT(does.sent_names(), ElementsAre("secure_answer"));
}

TEST_F(ClientLinkTest, DeliversAStepThatWasFinishedWhileItWasAway) {
  connect();
  take_steps(1);
  settle(1);
  receive(step(2, 2, some_bytes(40, 2)));
  does.sent.clear();
  link->disconnected();
  finish_step(2);
  connect();
  EXPECT_THAT(does.sent_names(), IsEmpty());
  receive(step(2, 2, some_bytes(40, 2)));
  EXPECT_THAT(does.sent_names(), ElementsAre("secure_answer"));
  EXPECT_EQ(does.starts.size(), 2U);
}

TEST_F(ClientLinkTest, UploadsALargeAnswerOnceItsHashIsKnown) {
  connect();
  take_steps(2);
  settle(2);
  receive(step(3, 3, some_bytes(40, 3)));
  does.sent.clear();
  const std::size_t size = ClientLink::kUploadChunk + 500;
  finish_step(3, size);
  EXPECT_THAT(does.sent_names(), IsEmpty());
  ASSERT_EQ(does.hashed.size(), 1U);
  hashed();
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.type, FrameType::secure_answer);
  EXPECT_EQ(parse_blob_reference(does.sent[0].body.span()), reference_to(some_bytes(size, 3).span()));
  receive(encode_grant(3, 0));
  EXPECT_EQ(link->next_chunk()->body.size(), ClientLink::kUploadChunk);
  // After a break the server holds a part; the client still has all of it.
  reconnect();
  receive(step(3, 3, some_bytes(40, 3)));
  receive(encode_grant(3, ClientLink::kUploadChunk));
  EXPECT_EQ(link->next_chunk()->body.size(), 500U);
  EXPECT_FALSE(link->next_chunk());
  EXPECT_EQ(does.hashed.size(), 1U);
  EXPECT_THAT(does.loads, IsEmpty());
  EXPECT_THAT(does.kept, IsEmpty());
}

TEST_F(ClientLinkTest, FetchesTheBodyOfAStepLikeAModelButNotToKeepIt) {
  connect();
  take_steps(1);
  settle(1);
  const SharedBuffer body = some_bytes(100'000, 2);
  receive(step(2, 2, body));
  ASSERT_EQ(does.opened.size(), 1U);
  EXPECT_EQ(does.opened[0], reference_to(body.span()));
  auto part = open_part();
  chunk(does.sent.back().head.request, some_bytes(100'000, 9), 0, 100'000);
  EXPECT_FALSE(store.finish(part));
  link->on_blob_wrong(part->reference());
  part = open_part();
  chunk(does.sent.back().head.request, body, 0, 100'000);
  EXPECT_EQ(does.opened_to_keep, 0U);
  link->on_blob_ready(part->reference(), *store.finish(part));
  ASSERT_EQ(does.starts.size(), 2U);
  EXPECT_EQ(reference_to(does.starts[1].task.body().span()), reference_to(body.span()));
}

TEST_F(ClientLinkTest, DropsTheAnswerToAStepWhenTheNextOneBegins) {
  connect();
  take_steps(2);
  reconnect();  // and the receipt was lost
  does.events.clear();
  receive(step(3, 3, some_bytes(40, 3)));
  EXPECT_EQ(link->answers(), 0U);
  EXPECT_THAT(does.events, ElementsAre("secure_step")) << "the server has it: no word of a loss";
}

TEST_F(ClientLinkTest, BeginsAnewWhenARestartedServerDoes) {
  connect();
  take_steps(2);
  reconnect();
  receive(task(31, 3, some_bytes(400)));
  EXPECT_EQ(link->answers(), 0U) << "an answer to a step of the protocol before";
  EXPECT_EQ(does.starts.size(), 3U);
  finish_step(1);
  settle(31);
  receive(step(32, 2, some_bytes(40, 8)));  // another roster
  EXPECT_EQ(does.starts.size(), 4U);
}

TEST_F(ClientLinkTest, DropsTheLastAnswerWhenALaterRoundBegins) {
  connect();
  take_steps(kSecureSteps);
  reconnect();
  does.texts.clear();
  receive(task(40, 4, some_bytes(400)));
  EXPECT_EQ(link->answers(), 0U);
  EXPECT_THAT(does.texts, ElementsAre("round 3: over before the answer could be delivered", HasSubstr("round 4: training")));
}

TEST_F(ClientLinkTest, KeepsTheAnswerToAStepWhileItMeasures) {
  connect();
  take_steps(2);
  receive(task(9, 3, some_bytes(400), TaskKind::evaluate));
  EXPECT_EQ(link->answers(), 1U);
}

TEST_F(ClientLinkTest, DropsAnswersToStepsOfAnotherRun) {
  connect();
  take_steps(2);
  link->disconnected();
  connect(kOtherRun);
  EXPECT_EQ(link->answers(), 0U);
  EXPECT_THAT(does.forgotten, IsEmpty());
  EXPECT_THAT(does.runs, ElementsAre(kRun, kOtherRun));
}

TEST_F(ClientLinkTest, StopsAStepThatNobodyWaitsForAnyMore) {
  connect();
  take_steps(1);
  settle(1);
  receive(step(2, 2, some_bytes(40, 2)));
  settle(2, Outcome::late);
  EXPECT_EQ(does.interrupts, 1);
  does.sent.clear();
  finish_step(2);
  EXPECT_THAT(does.sent_names(), IsEmpty());
  EXPECT_EQ(link->answers(), 0U);
}

TEST_F(ClientLinkTest, TakesAStepEvenWhenItMayNotTrain) {
  connect();
  take_steps(1);
  settle(1);
  link->on_policy(false, "on battery power");
  does.sent.clear();
  receive(step(2, 2, some_bytes(40, 2)));
  ASSERT_EQ(does.starts.size(), 2U);
  link->on_policy(true, "");
  link->on_policy(false, "on battery power");
  EXPECT_EQ(does.interrupts, 0);
  EXPECT_THAT(does.sent_names(), ElementsAre("heartbeat", "heartbeat"));
  finish_step(2);
  EXPECT_THAT(does.sent_names(), ElementsAre("secure_answer"));
  receive(task(9, 4, some_bytes(400)));
  EXPECT_THAT(does.sent_names(), ElementsAre("failed"));
}

TEST_F(ClientLinkTest, TakesAStepThatWaitedWhileTrainingWasStopped) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  receive(step(2, 2, some_bytes(40, 2)));
  link->on_policy(false, "on battery power");
  link->on_interrupted(does.starts[0].serial);
  ASSERT_EQ(does.starts.size(), 2U);
  EXPECT_EQ(does.starts[1].task.type(), MessageType::secure_step);
  EXPECT_EQ(parse_failure(message_of(does.sent.back(), {})), "training stopped: on battery power");
}

TEST_F(ClientLinkTest, SaysWhyItTakesNoPartInAStep) {
  connect();
  take_steps(1);
  settle(1);
  receive(step(2, 2, some_bytes(40, 2)));
  does.sent.clear();
  does.texts.clear();
  link->on_answer(does.starts.back().serial, encode_failure(3, "the roster leaves this client out"), 0.1);
  ASSERT_EQ(does.sent.size(), 1U);
  EXPECT_EQ(does.sent[0].head.request, 2U);
  EXPECT_EQ(parse_failure(message_of(does.sent[0], {})), "the roster leaves this client out");
  EXPECT_EQ(does.texts.front(), "round 3: the roster leaves this client out");
  EXPECT_THAT(does.kept, IsEmpty());
  settle(2, Outcome::failed);
  EXPECT_EQ(does.texts.back(), "round 3: not counted (failed)");
}

TEST_F(ClientLinkTest, KeepsAFailureToTrainOnDiskAsEver) {
  connect();
  receive(task(1, 3, some_bytes(400)));
  link->on_answer(does.starts.back().serial, encode_failure(3, "the loss is no number"), 0.1);
  EXPECT_EQ(does.kept.size(), 1U);
}

TEST_F(ClientLinkTest, DropsAServerWhoseStepIsMalformed) {
  connect();
  const Message good = encode_secure(MessageType::secure_step, secure_header(2), some_bytes(40));
  for (const std::uint32_t number : {0U, 1U, kSecureSteps + 1}) EXPECT_THAT(error_for(step(1, number, some_bytes(40))), HasSubstr("'step'")) << number;
  EXPECT_THAT(error_for(frame_of(Message(MessageType::secure_step, 4, good.header(), good.body()), 1)), HasSubstr("round 3 in a message of round 4"));
  EXPECT_THAT(error_for(frame_of(Message(MessageType::secure_step, 3, some_bytes(40), good.body()), 1)), HasSubstr("malformed message of secure aggregation"));
  EXPECT_THAT(error_for(frame_of(encode_secure(MessageType::secure_answer, secure_header(2), some_bytes(40)), 1)), HasSubstr("'secure_answer' where it does not belong"));
  EXPECT_THAT(does.starts, IsEmpty());
  for (std::uint32_t i = 1; i <= ClientLink::kTasks; ++i) receive(step(i, 2, some_bytes(40, i)));
  EXPECT_THAT(error_for(step(9, 2, some_bytes(40, 9))), HasSubstr("more than 4 tasks"));
}

// ---- heartbeats ----

TEST_F(ClientLinkTest, NamesTheRoundItTrainsInItsHeartbeats) {
  connect();
  EXPECT_EQ(parse_heartbeat(link->heartbeat()).training_round, 0U);
  receive(task(1, 3, some_bytes(400)));
  const Frame beat = link->heartbeat();
  EXPECT_EQ(parse_heartbeat(beat).training_round, 3U);
  EXPECT_TRUE(parse_heartbeat(beat).ready);
  receive(encode_heartbeat_reply(beat.head.request));
  EXPECT_THAT(error_for(encode_heartbeat_reply(beat.head.request)), HasSubstr("was not sent"));
  EXPECT_THAT(error_for(encode_heartbeat_reply(beat.head.request + 1)), HasSubstr("was not sent"));
}

}  // namespace
}  // namespace fl
