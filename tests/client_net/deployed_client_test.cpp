#include "client/net/deployed_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <numeric>

#include "client/session.h"
#include "fl_core/base/rng.h"
#include "fl_core/config/plan.h"
#include "fl_core/wire/limits.h"
#include "tests/client_net/scripted_server.h"
#include "tests/net_support/net/loopback.h"
#include "tests/net_support/net/test_pki.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

/// A real client over real TLS; the server is a script.
namespace fl {
namespace {

using test::LoopbackClient;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr std::size_t kBlobBytes = 3'000'000;

test::TestPki& pki() {
  static test::TestPki made(1);
  return made;
}

SharedBuffer some_bytes(std::size_t size, unsigned seed = 1) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + seed * 7 + i / 251);
  return SharedBuffer(std::move(bytes));
}

bool same(const SharedBuffer& a, const SharedBuffer& b) { return a.size() == b.size() && reference_to(a.span()) == reference_to(b.span()); }

Message task(std::uint32_t round, const SharedBuffer& weights, TaskKind kind = TaskKind::train) { return encode_task({kind, round, round - 1, 99, weights}); }

Message update(const Message& task, const SharedBuffer& body) {
  UpdateHeader header;
  header.round = task.round();
  header.codec = "identity";
  return encode_update(header, body);
}

class DeployedClientTest : public ::testing::Test {
 protected:
  DeployedClientTest() {
    config.server = "127.0.0.1:" + std::to_string(server.port());
    config.tls = pki().client(0);
    config.state = (folder / "state").string();
    config.exit_when_finished = true;
    // Instead of training: counts, and answers with `answer_bytes`.
    hooks.answer = [this](const Message& message, const std::function<bool()>&) {
      ++worked;
      last_weights = message.body();
      return update(message, some_bytes(answer_bytes, 9));
    };
  }
  void start() {
    if (config.host.empty()) config.resolve(folder.path());
    client.reset();
    client = std::make_unique<LoopbackClient>(config, data, hooks);
  }
  /// The program ends and begins again.
  void restart() { start(); }
  void stop() { client.reset(); }

  /// Answers a fetch with chunks of odd sizes: [fetch.offset, to).
  void send_blob(const SharedBuffer& blob, const Frame& fetch_frame, std::uint64_t to) {
    std::uint64_t offset = parse_fetch(fetch_frame).offset;
    while (offset < to) {
      const std::uint64_t size = std::min<std::uint64_t>(1 + random.below(limits::kChunkBytes), to - offset);
      server.send(encode_chunk(fetch_frame.head.request, offset, blob.slice(static_cast<std::size_t>(offset), static_cast<std::size_t>(size))));
      offset += size;
    }
  }
  std::size_t files(const std::string& name) const {
    const auto path = folder.path() / "state" / name;
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(path), std::filesystem::directory_iterator()));
  }
  /// Says that the run is over and waits for the end of the program.
  void finish() {
    server.send(encode(Goodbye{"the run is over", 0, true}));
    EXPECT_EQ(client->wait(), ExitCode::ok);
  }

  test::TemporaryFolder folder;
  test::ScriptedServer server{pki().server(), R"({"a": "plan"})"};
  ClientConfig config;
  LocalData data{nullptr, {0, 1, 2}, {{6}, 4, 0}};
  ClientHooks hooks;
  std::atomic<int> worked{0};
  std::size_t answer_bytes = 1000;
  SharedBuffer last_weights;
  Rng random{1, Purpose::evaluation};
  std::unique_ptr<LoopbackClient> client;
};

TEST_F(DeployedClientTest, TrainsAsASessionInThisProcessDoes) {
  ClientPlan plan;
  plan.model = {{"name", "toy_softmax"}};
  plan.trainer = {{"name", "sgd"}, {"batch_size", 5}, {"learning_rate", 0.1}, {"epochs", 1}};
  plan.codec = {{"name", "identity"}};
  plan.seed = 5;
  plan.shape = data.shape;
  test::ScriptedServer real(pki().server(), plan_text(plan));
  config.server = "127.0.0.1:" + std::to_string(real.port());
  config.data = {{"name", "synthetic"}, {"examples", 60}, {"test_examples", 10}, {"input", {6}}, {"classes", 4}};
  data = load_local_data(config);
  hooks.answer = nullptr;
  std::atomic<int> prepared_worker{0};
  hooks.worker_setup = [&] { ++prepared_worker; };
  start();

  auto model = test::make_toy_model(data.shape, 5);
  const auto trainer = trainers().create(plan.trainer, "trainer");
  const auto codec = codecs().create(plan.codec, "codec");
  const SharedBuffer weights = SharedBuffer::copy_of(std::as_bytes(model->weights()));
  const Message asked = encode_task({TaskKind::train, 2, 1, model->layout()->fingerprint(), weights});
  ClientSession session(ClientKit{*model, *trainer, *codec, "identity", *data.data, 5}, real.client, data.shard);
  const auto expected = session.handle(asked, nullptr);

  const Hello hello = real.accept();
  EXPECT_EQ(hello.examples, 1U) << "how many examples there are here is this device's business";
  EXPECT_EQ(hello.input, "6");
  EXPECT_EQ(hello.classes, 4U);
  real.welcome(hello);
  real.send(frame_of(asked, 17));
  const Frame frame = real.read(FrameType::update);
  EXPECT_EQ(frame.head.request, 17U);
  EXPECT_TRUE(same(frame.header, expected->header()));
  EXPECT_TRUE(same(frame.body, expected->body()));
  EXPECT_EQ(prepared_worker, 1);

  // A task that no correct server sends costs the connection; the next one works.
  real.send(frame_of(encode_task({TaskKind::train, 3, 2, 12345, weights}), 18));
  const Hello again = real.accept();
  EXPECT_EQ(again.plan_sha256, sha256_hex(std::as_bytes(std::span(real.plan()))));
  real.welcome(again);
  real.send(encode(Goodbye{"over", 0, true}));
  EXPECT_EQ(client->wait(), ExitCode::ok);
}

TEST_F(DeployedClientTest, EndsWhenItsDataAreOfAnotherShapeThanTheExperiments) {
  ClientPlan plan;
  plan.model = {{"name", "toy_softmax"}};
  plan.trainer = {{"name", "sgd"}};
  plan.codec = {{"name", "identity"}};
  plan.shape = {{1, 28, 28}, 10, 0};
  test::ScriptedServer real(pki().server(), plan_text(plan));
  config.server = "127.0.0.1:" + std::to_string(real.port());
  hooks.answer = nullptr;
  start();
  real.accept_and_welcome();
  EXPECT_THAT(test::error_of([&] { client->wait(); }), AllOf(HasSubstr("6 in 4 classes"), HasSubstr("1x28x28 in 10 classes")));
}

TEST_F(DeployedClientTest, AnswersWhyItCannotFollowAPlan) {
  ClientPlan plan;
  plan.model = {{"name", "toy_softmax"}};
  plan.trainer = {{"name", "sgd"}};
  plan.codec = {{"name", "identity"}};
  plan.shape = data.shape;
  test::ScriptedServer real(pki().server(), plan_text(plan));
  config.server = "127.0.0.1:" + std::to_string(real.port());
  config.limits.memory_mb = 1;  // less than any program has
  hooks.answer = nullptr;
  start();
  real.accept_and_welcome();
  real.send(frame_of(task(1, some_bytes(116)), 1));
  EXPECT_THAT(parse_failure(message_of(real.read(FrameType::failed), {})), HasSubstr("this client may use 1.00 MB"));
}

TEST_F(DeployedClientTest, FetchesABlobAcrossBreaksAtAnyOffset) {
  const SharedBuffer weights = some_bytes(kBlobBytes);
  start();
  std::uint64_t held = 0;
  int resumed = 0;
  for (;;) {
    server.accept_and_welcome();
    server.send(frame_of(task(1, weights), 1));
    const Frame fetch = server.read(FrameType::fetch);
    const std::uint64_t offset = parse_fetch(fetch).offset;
    EXPECT_GE(offset, held);
    resumed += offset > 0 ? 1 : 0;
    held = offset;
    if (resumed == 3) {
      send_blob(weights, fetch, kBlobBytes);
      break;
    }
    send_blob(weights, fetch, std::min<std::uint64_t>(offset + 1 + random.below(800'000), kBlobBytes - 1));
    server.close();
  }
  server.read(FrameType::update);
  EXPECT_EQ(worked, 1);
  EXPECT_TRUE(same(last_weights, weights));
  finish();
}

TEST_F(DeployedClientTest, GoesOnWithAFetchAfterARestart) {
  const SharedBuffer weights = some_bytes(kBlobBytes);
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, weights), 1));
  send_blob(weights, server.read(FrameType::fetch), 1'234'567);
  // What comes after the chunks on the same connection was read after them.
  server.send(encode(Goodbye{"restarting", 0, false}));
  client->await("disconnected");
  restart();
  server.accept_and_welcome();
  server.send(frame_of(task(1, weights), 1));
  const Frame fetch = server.read(FrameType::fetch);
  EXPECT_EQ(parse_fetch(fetch).offset, 1'234'567U);
  send_blob(weights, fetch, kBlobBytes);
  server.read(FrameType::update);
  EXPECT_TRUE(same(last_weights, weights));
  finish();
}

TEST_F(DeployedClientTest, NeverFetchesWhatItHolds) {
  const SharedBuffer weights = some_bytes(kBlobBytes);
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, weights), 1));
  send_blob(weights, server.read(FrameType::fetch), kBlobBytes);
  server.read(FrameType::update);
  server.send(frame_of(task(1, weights, TaskKind::evaluate), 2));
  server.read(FrameType::update);
  restart();
  server.accept_and_welcome();
  server.send(frame_of(task(2, weights), 3));
  server.read(FrameType::update);
  EXPECT_EQ(worked, 3);
  EXPECT_EQ(files("blobs"), 1U);
  finish();
}

TEST_F(DeployedClientTest, FetchesAgainWhatCameDamaged) {
  const SharedBuffer weights = some_bytes(200'000);
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, weights), 1));
  send_blob(some_bytes(200'000, 2), server.read(FrameType::fetch), 200'000);
  const Frame again = server.read(FrameType::fetch);
  EXPECT_EQ(parse_fetch(again).offset, 0U);
  send_blob(some_bytes(200'000, 3), again, 200'000);
  EXPECT_THAT(client->await("disconnected").text, HasSubstr("do not have the hash"));
  server.accept_and_welcome();
  server.send(frame_of(task(1, weights), 1));
  send_blob(weights, server.read(FrameType::fetch), 200'000);
  server.read(FrameType::update);
  finish();
}

TEST_F(DeployedClientTest, WorksWithoutAFolder) {
  config.state = "";
  config.resolve(folder.path());
  const SharedBuffer weights = some_bytes(kBlobBytes);
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, weights), 1));
  send_blob(weights, server.read(FrameType::fetch), kBlobBytes);
  server.read(FrameType::update);
  EXPECT_TRUE(same(last_weights, weights));
  EXPECT_FALSE(std::filesystem::exists(folder / "state"));
  finish();
}

TEST_F(DeployedClientTest, DeliversOneAnswerOverBreaksAndRestarts) {
  std::promise<void> gone;
  hooks.answer = [this, let = gone.get_future().share()](const Message& message, const std::function<bool()>&) {
    ++worked;
    let.wait();
    return update(message, some_bytes(answer_bytes, 9));
  };
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  client->await("training");
  server.reset();
  client->await("disconnected");
  gone.set_value();
  client->await("trained");
  // First after the break, then after a restart of the client, then after one of the server.
  for (std::uint64_t request = 1; request <= 3; ++request) {
    if (request == 2) restart();
    server.accept_and_welcome();
    server.send(frame_of(task(1, some_bytes(400)), request));
    const Frame frame = server.read(FrameType::update);
    EXPECT_EQ(frame.head.request, request);
    EXPECT_TRUE(same(frame.body, some_bytes(answer_bytes, 9)));
    if (request < 3) server.reset();
  }
  EXPECT_EQ(worked, 1);
  EXPECT_EQ(files("pending"), 2U);
  server.send(encode(Receipt{Outcome::accepted}, 3, 1));
  EXPECT_EQ(client->await("settled").text, "round 1: counted");
  finish();
  EXPECT_EQ(files("pending"), 0U);
}

/// The answer to a task of secure aggregation; `train` is the first step.
Message secure_answer(const Message& task, const SharedBuffer& body) {
  SecureHeader header;
  if (task.type() == MessageType::secure_step) header = parse_secure_header(task);
  header.round = task.round();
  return encode_secure(MessageType::secure_answer, header, body);
}

Message secure_step(std::uint32_t step, const SharedBuffer& body) {
  SecureHeader header;
  header.round = 1;
  header.step = step;
  return encode_secure(MessageType::secure_step, header, body);
}

TEST_F(DeployedClientTest, TakesTheStepsOfSecureAggregationAndForgetsThemWithTheProgram) {
  const SharedBuffer vector = some_bytes(700'000, 3);
  hooks.answer = [&](const Message& message, const std::function<bool()>&) {
    ++worked;
    last_weights = message.body();
    const bool large = message.type() == MessageType::secure_step && parse_secure_header(message).step == 3;
    return secure_answer(message, large ? vector : some_bytes(200, 9));
  };
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  EXPECT_EQ(parse_secure_header(message_of(server.read(FrameType::secure_answer), {})).step, 1U);
  server.send(encode(Receipt{Outcome::accepted}, 1, 1));

  // A step whose message fills a blob.
  const SharedBuffer roster = some_bytes(200'000, 2);
  server.send(frame_of(secure_step(2, roster), 2));
  send_blob(roster, server.read(FrameType::fetch), roster.size());
  EXPECT_EQ(parse_secure_header(message_of(server.read(FrameType::secure_answer), {})).step, 2U);
  EXPECT_TRUE(same(last_weights, roster));
  EXPECT_EQ(files("blobs"), 0U) << "it tells of others";
  server.send(encode(Receipt{Outcome::accepted}, 2, 1));

  // An answer that does, over a broken connection.
  server.send(frame_of(secure_step(3, some_bytes(300)), 3));
  EXPECT_EQ(parse_blob_reference(server.read(FrameType::secure_answer).body.span()), reference_to(vector.span()));
  server.send(encode_grant(3, 0));
  server.read(FrameType::chunk);
  server.reset();
  server.accept_and_welcome();
  server.send(frame_of(secure_step(3, some_bytes(300)), 3));
  server.read(FrameType::secure_answer);
  server.send(encode_grant(3, 600'000));
  const Frame rest = server.read(FrameType::chunk);
  EXPECT_TRUE(same(rest.body, vector.slice(600'000, 100'000)));
  EXPECT_EQ(worked, 3) << "it was computed once";
  EXPECT_EQ(files("pending"), 0U);

  // A program that was restarted holds no answer: it is asked as if for the first time.
  restart();
  server.accept_and_welcome();
  server.send(frame_of(secure_step(3, some_bytes(300)), 3));
  server.read(FrameType::secure_answer);
  EXPECT_EQ(worked, 4);
  EXPECT_EQ(client->count("settled"), 0U);
  finish();
}

TEST_F(DeployedClientTest, DropsAnAnswerOfAnotherRun) {
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  server.read(FrameType::update);
  server.reset();
  server.run = std::string(32, 'b');
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  server.read(FrameType::update);
  EXPECT_EQ(worked, 2);
  finish();
  EXPECT_EQ(files("pending"), 2U) << "of the second run";
}

TEST_F(DeployedClientTest, GoesOnWithAnUploadFromTheGrantedOffset) {
  answer_bytes = kBlobBytes;
  const SharedBuffer body = some_bytes(kBlobBytes, 9);
  start();
  std::vector<std::byte> received;
  const std::vector<std::size_t> breaks = {1, 500'000, 1'700'001, kBlobBytes};
  for (std::size_t i = 0; i < breaks.size(); ++i) {
    if (i == 2) restart();
    server.accept_and_welcome();
    server.send(frame_of(task(1, some_bytes(400)), i + 1));
    const Frame offer = server.read(FrameType::update);
    EXPECT_EQ(parse_blob_reference(offer.body.span()), reference_to(body.span()));
    server.send(encode_grant(i + 1, received.size()));
    while (received.size() < breaks[i]) {
      const Frame chunk = server.read(FrameType::chunk);
      EXPECT_EQ(chunk.head.request, i + 1);
      ASSERT_EQ(parse_chunk(chunk.head, chunk.header.span()), received.size());
      received.insert(received.end(), chunk.body.span().begin(), chunk.body.span().end());
    }
    if (i + 1 < breaks.size()) server.reset();
  }
  EXPECT_EQ(reference_to(received), reference_to(body.span()));
  EXPECT_EQ(worked, 1);
  server.send(encode(Receipt{Outcome::accepted}, breaks.size(), 1));
  client->await("settled");
  finish();
}

TEST_F(DeployedClientTest, IsHeardWhileItTrains) {
  server.heartbeat_s = 1;
  std::promise<void> heard;
  hooks.answer = [let = heard.get_future().share()](const Message& message, const std::function<bool()>&) {
    let.wait();
    return update(message, some_bytes(10));
  };
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(7, some_bytes(400)), 1));
  client->await("training");
  for (int training = 0; training < 2;) training += server.read_heartbeat().training_round == 7 ? 1 : 0;
  heard.set_value();
  server.read(FrameType::update);
  finish();
}

TEST_F(DeployedClientTest, StopsTrainingWhenItIsNoLongerAllowedAndSaysSo) {
  std::atomic<bool> allowed{true};
  hooks.policy = [&](bool) { return allowed ? Permission{} : Permission{false, "outside of the allowed hours 22-6"}; };
  hooks.answer = [this](const Message& message, const std::function<bool()>& should_stop) {
    ++worked;
    while (worked == 1 && !should_stop()) std::this_thread::yield();
    if (worked == 1) throw Interrupted("stopped");
    return update(message, some_bytes(10));
  };
  start();
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  client->await("training");
  allowed = false;
  const Frame failed = server.read(FrameType::failed);
  EXPECT_EQ(parse_failure(message_of(failed, {})), "training stopped: outside of the allowed hours 22-6");
  EXPECT_FALSE(server.heartbeats.back().ready);
  allowed = true;
  while (!server.read_heartbeat().ready) continue;
  server.send(frame_of(task(2, some_bytes(400)), 2));
  server.read(FrameType::update);
  finish();
}

TEST_F(DeployedClientTest, SaysGoodbyeWhenItIsStoppedWhileItTrains) {
  DeployedClient* stopped = nullptr;
  std::atomic<bool> training{false};
  hooks.answer = [&](const Message& message, const std::function<bool()>& should_stop) {
    training = true;
    while (!should_stop()) std::this_thread::yield();
    if (should_stop()) throw Interrupted("stopped");
    return update(message, some_bytes(10));
  };
  hooks.uniform = [] { return 0.0; };
  config.resolve(folder.path());
  DeployedClient own(config, data, hooks);
  stopped = &own;
  auto result = std::async(std::launch::async, [&] { return own.run(); });
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  while (!training) std::this_thread::yield();
  stopped->request_stop("the client was stopped by SIGTERM");
  EXPECT_EQ(parse_goodbye(server.read(FrameType::goodbye)).reason, "the client was stopped by SIGTERM");
  EXPECT_EQ(result.get(), ExitCode::interrupted);
}

TEST_F(DeployedClientTest, CanBeStoppedAtAnyPointOfAConnection) {
  config.resolve(folder.path());
  const auto run_until = [&](const std::function<void(DeployedClient&)>& stop_it) {
    DeployedClient own(config, data, hooks);
    auto result = std::async(std::launch::async, [&] { return own.run(); });
    stop_it(own);
    EXPECT_EQ(result.get(), ExitCode::interrupted);
  };
  run_until([](DeployedClient& own) { own.request_stop(); });  // perhaps before it began
  run_until([&](DeployedClient& own) {                         // the hello was sent, nobody answers
    server.accept();
    own.request_stop();
  });
  run_until([&](DeployedClient& own) {
    server.accept_and_welcome();
    own.request_stop();
  });
  // While it waits to connect again: half a minute, or more.
  std::promise<void> waiting;
  hooks.uniform = [] { return 0.999; };
  hooks.on_event = [&](const ClientEvent& event) {
    if (event.name == "disconnected") waiting.set_value();
  };
  run_until([&](DeployedClient& own) {
    server.welcome(server.accept());
    server.send(encode(Goodbye{"maintenance", 3600, false}));
    waiting.get_future().wait();
    own.request_stop();
  });
  hooks.on_event = nullptr;
  // Nobody speaks TLS on the other side.
  ProbeListener silent("127.0.0.1", 0);
  config.server = "127.0.0.1:" + std::to_string(silent.port());
  config.resolve(folder.path());
  run_until([&](DeployedClient& own) {
    const int socket = silent.accept(test::ScriptedServer::kHangs);
    own.request_stop();
    ::close(socket);
  });
}

TEST_F(DeployedClientTest, LeavesAServerThatBreaksTheProtocolAndComesBack) {
  start();
  const auto broken = [&](const std::string& what, const std::function<void()>& breaks) {
    server.accept_and_welcome();
    breaks();
    EXPECT_THAT(client->await("disconnected").text, HasSubstr(what));
  };
  broken("does not begin with TRBT", [&] { server.send_bytes(std::string(64, 'x')); });
  broken("frame type 9 is unknown", [&] {
    Frame frame = encode_heartbeat_reply(1);
    frame.head.type = static_cast<FrameType>(9);
    server.send(frame);
  });
  broken("malformed", [&] {
    Frame frame = encode_grant(1, 0);
    server.send(Frame(frame.head, SharedBuffer::copy_of(std::as_bytes(std::span("garbage", 7))), SharedBuffer()));
  });
  broken("nobody asked for", [&] { server.send(encode_chunk(5, 0, some_bytes(1000))); });
  broken("refers to", [&] {
    FrameHeader head = frame_of(task(1, some_bytes(100)), 1).head;
    BlobReference huge;
    huge.size_bytes = std::uint64_t{1} << 60U;
    head.flags = kFlagBlob;
    server.send(Frame(head, task(1, some_bytes(100)).header(), encode_blob_reference(huge)));
  });
  broken("more than 4 tasks", [&] {
    for (std::uint32_t i = 1; i <= 5; ++i) server.send(frame_of(task(i, some_bytes(200'000, i)), i));
  });
  server.accept_and_welcome();
  server.send(frame_of(task(1, some_bytes(400)), 1));
  server.read(FrameType::update);
  finish();
}

TEST_F(DeployedClientTest, EndsWhenTheServerWillNeverLetItIn) {
  start();
  server.accept();
  server.send(encode(Refused{Refusal::not_admitted, "client-0 is not on the list", 0}));
  EXPECT_THAT(test::error_of([&] { client->wait(); }), HasSubstr("refuses this client: client-0 is not on the list"));
}

TEST_F(DeployedClientTest, ComesBackToAServerThatIsBusy) {
  start();
  server.accept();
  server.send(encode(Refused{Refusal::busy, "too many sessions", 0}));
  EXPECT_THAT(client->await("disconnected").text, HasSubstr("too many sessions"));
  server.accept_and_welcome();
  finish();
}

TEST_F(DeployedClientTest, StaysWhenTheRunIsOverUnlessToldOtherwise) {
  config.exit_when_finished = false;
  start();
  server.accept_and_welcome();
  server.send(encode(Goodbye{"the run is over", 0, true}));
  client->await("finished");
  client->await("disconnected");
  server.accept_and_welcome();
}

TEST_F(DeployedClientTest, SaysThatTheServerIsNotTheOneItLooksFor) {
  config.server_name = "other.example";
  start();
  auto nobody = std::async(std::launch::async, [&] { return test::error_of([&] { server.accept(); }); });
  EXPECT_THAT(client->await("disconnected").text, HasSubstr("is not for 'other.example'"));
  stop();
  // Lets the script's accept() come to its end.
  config.server_name = "127.0.0.1";
  start();
  EXPECT_EQ(nobody.get(), "");
}

TEST_F(DeployedClientTest, TakesARenewedCertificateWithoutARestart) {
  const TlsFiles old = pki().expired_client();
  const TlsFiles good = pki().client(0);
  for (const auto& [from, name] : {std::pair{old.certificate, "cert.pem"}, std::pair{old.key, "key.pem"}}) {
    std::filesystem::copy_file(from, folder / name);
  }
  config.tls.certificate = (folder / "cert.pem").string();
  config.tls.key = (folder / "key.pem").string();
  start();
  EXPECT_THAT(client->await("disconnected").text, HasSubstr("has expired"));
  std::filesystem::rename(folder / "key.pem", folder / "old-key.pem");  // between the two renames the pair does not fit
  std::filesystem::copy_file(good.certificate, folder / "new-cert.pem");
  std::filesystem::copy_file(good.key, folder / "key.pem");
  std::filesystem::rename(folder / "new-cert.pem", folder / "cert.pem");
  server.accept_and_welcome();
  finish();
}

}  // namespace
}  // namespace fl
