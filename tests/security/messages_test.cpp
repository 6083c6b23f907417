// Promises: a message counts at most once, only in its round, and only from its sender; no bytes of a peer crash, hang or
// allocate beyond their limit. Each test drives a client with a valid certificate while honest clients train.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <sys/resource.h>

#include <cmath>
#include <limits>

#include "aggregator/store/journal.h"
#include "fl_core/wire/limits.h"
#include "tests/net_support/net/hostile_client.h"
#include "tests/net_support/net/loopback.h"
#include "tests/net_support/net/recount.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using test::HostileClient;
using test::Loopback;
using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;

constexpr std::size_t kHostile = 3;

/// The most memory that this process, aggregator included, ever had.
std::uint64_t peak_bytes() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

/// Three honest clients and a hostile one, everybody asked in every round. A client that has gone is waited for a moment only.
class Messages : public testing::Test {
 protected:
  Messages() : federation_(experiment()) {
    federation_.config().clients.minimum = 3;
    federation_.config().limits.grace_s = 0.2;
    start();
  }

  static nlohmann::json experiment(const nlohmann::json& changes = nlohmann::json::object()) {
    nlohmann::json document = test::toy_experiment();
    document["partition"] = {{"name", "iid"}, {"clients", 4}};
    document["rounds"] = 100'000;
    document["round"] = {{"cohort", 4}, {"deadline_s", 20}};
    document["devices"] = nlohmann::json::object();  // a deadline is only allowed where devices are slow
    document["evaluation"] = {{"every", 0}};
    document.merge_patch(changes);
    return document;
  }

  void start() {
    federation_.start_server();
    federation_.start_clients(0, 3);
  }

  /// The honest clients' rounds go on, every one of their updates counted, and the model is what the journal says, added up anew.
  void expect_unharmed() {
    federation_.await_rounds(2);
    federation_.stop_server();
    const auto reports = federation_.reports();
    for (const RoundReport& report : reports) {
      for (const ClientOutcome& member : report.cohort) {
        if (member.client != kHostile) {
          EXPECT_EQ(member.outcome, Outcome::accepted) << "client " << member.client << " in round " << report.round;
        }
      }
    }
    const auto store = open_journal(std::filesystem::path(federation_.config().folder) / "journal.db", JournalMode::existing);
    EXPECT_EQ(test::recounted_hashes(federation_.prepared(), reports, std::stoull(store->meta("max_updates").value())), store->model_hashes());
  }

  /// What became of the hostile client in a round.
  Outcome outcome_in(std::uint32_t round) {
    // The receipt follows the commit, the report a moment later.
    while (federation_.reports().size() < round) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const std::vector<RoundReport> reports = federation_.reports();
    for (const ClientOutcome& member : reports.at(round - 1).cohort) {
      if (member.client == kHostile) return member.outcome;
    }
    ADD_FAILURE() << "it was not asked in round " << round;
    return Outcome::left;
  }

  /// One answer, tampered with; what became of it.
  Outcome outcome_of(const HostileClient::Tamper& tamper) {
    HostileClient hostile(federation_, kHostile);
    const Message task = hostile.await_task();
    hostile.send(hostile.tampered_update(task, hostile.request(), tamper));
    const Receipt receipt = parse_receipt(hostile.await(FrameType::receipt));
    EXPECT_EQ(receipt.outcome, outcome_in(task.round())) << "the client and the journal were told different things";
    return receipt.outcome;
  }

  /// What the server says to a frame that no honest client sends. The client has a task.
  std::string verdict_on(const std::function<void(HostileClient&, const Message& task)>& act) {
    HostileClient hostile(federation_, kHostile);
    const Message task = hostile.await_task();
    act(hostile, task);
    return hostile.verdict();
  }
  std::string verdict_on_bytes(const std::vector<std::byte>& bytes) {
    return verdict_on([&](HostileClient& hostile, const Message&) { hostile.send_bytes(bytes); });
  }

  Loopback federation_;
};

TEST_F(Messages, AnHonestAnswerCounts) {
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>&) {}), Outcome::accepted);
  expect_unharmed();
}

TEST_F(Messages, BadContentsAreRefusedByTheirReason) {
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>& delta) { delta[3] = NAN; }), Outcome::not_finite);
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>& delta) { delta[0] = -std::numeric_limits<float>::infinity(); }), Outcome::not_finite);
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>& delta) { delta.back() = 64; }), Outcome::out_of_bound);
  EXPECT_EQ(outcome_of([](UpdateHeader& header, std::vector<float>&) { header.fingerprint ^= 1; }), Outcome::wrong_model);
  EXPECT_EQ(outcome_of([](UpdateHeader& header, std::vector<float>&) { header.codec = "fp16"; }), Outcome::malformed);
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>& delta) { delta.pop_back(); }), Outcome::malformed);
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>& delta) { delta.push_back(0); }), Outcome::malformed);
  EXPECT_EQ(outcome_of([](UpdateHeader&, std::vector<float>& delta) { delta.clear(); }), Outcome::malformed);
  expect_unharmed();
}

TEST_F(Messages, AnUpdateOfAnotherRoundOrModelDoesNotCount) {
  EXPECT_EQ(outcome_of([](UpdateHeader& header, std::vector<float>&) { ++header.round; }), Outcome::wrong_round);
  EXPECT_EQ(outcome_of([](UpdateHeader& header, std::vector<float>&) { header.round = 0; }), Outcome::wrong_round);
  EXPECT_EQ(outcome_of([](UpdateHeader& header, std::vector<float>&) { ++header.model_version; }), Outcome::wrong_round);
  expect_unharmed();
}

TEST_F(Messages, ADuplicateCountsOnce) {
  HostileClient hostile(federation_, kHostile);
  const Message task = hostile.await_task();
  const Frame update = hostile.honest_update(task, hostile.request());
  for (int i = 0; i < 5; ++i) hostile.send(update);
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::accepted);
  EXPECT_EQ(outcome_in(task.round()), Outcome::accepted);
  hostile.probe().close();
  expect_unharmed();
}

TEST_F(Messages, AReplayInTheNextRoundDoesNotCount) {
  HostileClient hostile(federation_, kHostile);
  const Message first = hostile.await_task();
  const Frame update = hostile.honest_update(first, hostile.request());
  hostile.send(update);
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::accepted);
  const Message second = hostile.await_task();
  ASSERT_GT(second.round(), first.round());
  hostile.send(update);  // the very bytes: its request is settled
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::wrong_round);
  Frame relabelled = update;  // and under the new request: its header tells
  relabelled.head.request = hostile.request();
  hostile.send(relabelled);
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::wrong_round);
  EXPECT_EQ(outcome_in(second.round()), Outcome::wrong_round);
  hostile.probe().close();
  expect_unharmed();
}

TEST_F(Messages, AReplayAfterARestartDoesNotCount) {
  std::optional<Frame> update;
  {
    HostileClient hostile(federation_, kHostile);
    const Message task = hostile.await_task();
    update = hostile.honest_update(task, hostile.request());
    hostile.send(*update);
    EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::accepted);
    federation_.stop_server();
  }
  federation_.start_server();
  HostileClient hostile(federation_, kHostile);
  const Message task = hostile.await_task();
  update->head.request = hostile.request();
  hostile.send(*update);
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::wrong_round);
  hostile.probe().close();
  expect_unharmed();
}

TEST_F(Messages, NobodyAnswersForAnother) {
  HostileClient hostile(federation_, kHostile);
  const Message task = hostile.await_task();
  const std::uint64_t own = hostile.request();
  // Requests are numbered in the order of sending, so those of the other three lie around it. A poisoned answer to each of them:
  for (std::uint64_t other = own < 6 ? 1 : own - 5; other <= own + 5; ++other) {
    if (other == own) continue;
    hostile.send(hostile.tampered_update(task, other, [](UpdateHeader&, std::vector<float>& delta) { delta[0] = 60; }));
    EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::wrong_round) << "request " << other << ", own " << own;
  }
  hostile.send(hostile.honest_update(task, own));
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::accepted);
  hostile.probe().close();
  expect_unharmed();
}

TEST_F(Messages, RequestsThatNobodyMadeAreSettledAtOnce) {
  HostileClient hostile(federation_, kHostile);
  const Message task = hostile.await_task();
  for (const std::uint64_t request : {std::uint64_t{0}, UINT64_MAX, std::uint64_t{1} << 40U}) {
    hostile.send(hostile.honest_update(task, request));
    EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::wrong_round);
    hostile.send(frame_of(encode_failure(task.round(), "no"), request));
    EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::wrong_round);
  }
  EXPECT_EQ(hostile.verdict(), "welcome to stay");
  hostile.probe().close();
  expect_unharmed();
}

TEST_F(Messages, ATaskOfAnEarlierSessionCanBeAnsweredInTheNext) {
  // Positive control of all that is refused here: the same identity, the same request, another connection.
  std::optional<Frame> update;
  std::uint32_t round = 0;
  {
    HostileClient before(federation_, kHostile);
    const Message task = before.await_task();
    round = task.round();
    update = before.honest_update(task, before.request());
    before.probe().reset();
  }
  HostileClient after(federation_, kHostile);
  const Message task = after.await_task();
  if (task.round() == round) {  // else the grace time was over first
    EXPECT_EQ(after.request(), update->head.request);
    after.send(*update);
    EXPECT_EQ(parse_receipt(after.await(FrameType::receipt)).outcome, Outcome::accepted);
  }
  after.probe().close();
  expect_unharmed();
}

TEST_F(Messages, FramesThatAreNoneEndTheConnection) {
  FrameHeader head;
  head.type = FrameType::heartbeat;
  const auto fixed = encode_frame_header(head);
  const auto with = [&](std::size_t at, unsigned value) {
    std::vector<std::byte> bytes(fixed.begin(), fixed.end());
    bytes[at] = static_cast<std::byte>(value);
    return bytes;
  };
  const auto with_length = [&](std::size_t at) {
    std::vector<std::byte> bytes(fixed.begin(), fixed.end());
    for (std::size_t i = at; i < at + 4; ++i) bytes[i] = std::byte{0xff};
    return bytes;
  };
  const std::uint64_t before = peak_bytes();
  const auto ended = AnyOf(HasSubstr("malformed frame"), HasSubstr("closed the connection"), HasSubstr("broke the connection"));
  EXPECT_THAT(verdict_on_bytes(with(0, 'X')), ended);
  EXPECT_THAT(verdict_on_bytes(with(4, 9)), ended);     // version
  EXPECT_THAT(verdict_on_bytes(with(5, 200)), ended);   // type
  EXPECT_THAT(verdict_on_bytes(with(7, 0x80)), ended);  // flags
  EXPECT_THAT(verdict_on_bytes(with(20, 1)), ended);    // reserved
  EXPECT_THAT(verdict_on_bytes(with_length(12)), ended);  // 4 GiB of header
  EXPECT_THAT(verdict_on_bytes(with_length(16)), ended);  // 4 GiB of body
  EXPECT_LT(peak_bytes() - before, 64U << 20U) << "memory was given to lengths that were never meant";
  EXPECT_EQ(verdict_on([](HostileClient&, const Message&) {}), "welcome to stay");
  expect_unharmed();
}

TEST_F(Messages, FramesThatAClientMayNotSendEndTheConnection) {
  const auto says = [&](const Frame& frame) {
    return verdict_on([&](HostileClient& hostile, const Message&) { hostile.send(frame); });
  };
  EXPECT_THAT(says(encode(test::fitting_hello(federation_))), HasSubstr("may not send hello"));
  EXPECT_THAT(says(encode(Welcome{})), HasSubstr("welcome"));
  EXPECT_THAT(says(encode(Refused{})), HasSubstr("may not send refused"));
  EXPECT_THAT(says(encode_heartbeat_reply(1)), HasSubstr("may not send heartbeat_reply"));
  EXPECT_THAT(says(encode_grant(1, 0)), HasSubstr("may not send grant"));
  EXPECT_THAT(says(encode(Receipt{}, 1, 1)), HasSubstr("may not send receipt"));
  EXPECT_THAT(verdict_on([](HostileClient& hostile, const Message& task) { hostile.send(frame_of(task, 1)); }), HasSubstr("train"));
  const Bytes junk(100);
  const Frame garbage(FrameHeader{FrameType::update}, SharedBuffer::copy_of(junk.span()), SharedBuffer());
  EXPECT_EQ(verdict_on([&](HostileClient& hostile, const Message&) {
              Frame mine = garbage;
              mine.head.request = hostile.request();
              hostile.send(mine);
              EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::malformed);
            }),
            "welcome to stay");
  EXPECT_THAT(says(Frame(FrameHeader{FrameType::heartbeat}, SharedBuffer::copy_of(junk.span()), SharedBuffer())), HasSubstr("malformed"));
  // No frame at all: the stream is closed without a word, or with one that a reset may overtake.
  const auto ended = AnyOf(HasSubstr("with a body of"), HasSubstr("closed the connection"), HasSubstr("broke the connection"));
  EXPECT_THAT(says(Frame(FrameHeader{FrameType::heartbeat}, encode(Heartbeat{}, 0).header, SharedBuffer::copy_of(junk.span()))), ended);
  Bytes too_much(limits::kInlineBytes + 1);
  EXPECT_THAT(says(Frame(FrameHeader{FrameType::update}, SharedBuffer(), SharedBuffer(std::move(too_much)))), ended);
  expect_unharmed();
}

/// A model of 84 KB: weights and updates travel as blobs.
class Uploads : public Messages {
 protected:
  Uploads() : blobs_(experiment({{"data", {{"input", {300}}, {"classes", 70}}}, {"trainer", {{"learning_rate", 0.01}}}})) {
    blobs_.config().clients.minimum = 3;
    blobs_.config().limits.grace_s = 0.2;
    blobs_.start_server();
    blobs_.start_clients(0, 3);
  }
  void SetUp() override { federation_.stop_server(); }

  struct Upload {
    Message message;
    BlobReference reference;
    std::uint64_t request = 0;
    std::size_t granted = 0;  ///< where the server wants it to begin: it may hold a part from an earlier connection
  };
  /// Takes a task and announces the honest answer; `change` may spoil the announcement.
  Upload announce(HostileClient& hostile, const std::function<void(BlobReference&)>& change = {}) const {
    const Message task = hostile.await_task();
    Upload upload{test::honest_answer(blobs_.prepared(), kHostile, task), {}, hostile.request(), 0};
    upload.reference = reference_to(upload.message.body().span());
    if (change) change(upload.reference);
    hostile.send(frame_of(upload.message, upload.request, upload.reference));
    return upload;
  }
  static Frame chunk(const Upload& upload, std::size_t offset, std::size_t size) {
    return encode_chunk(upload.request, offset, upload.message.body().slice(offset, size));
  }
  /// Announces, waits for the grant, and lets `act` send; what the server says.
  std::string verdict_on_upload(const std::function<void(HostileClient&, const Upload&)>& act) {
    HostileClient hostile(blobs_, kHostile);
    Upload upload = announce(hostile);
    upload.granted = static_cast<std::size_t>(parse_grant(hostile.await(FrameType::grant)));
    act(hostile, upload);
    return hostile.verdict();
  }

  Loopback blobs_;
};

TEST_F(Uploads, AnHonestOneCountsInAnyPieces) {
  for (const std::size_t piece : {std::size_t{84284}, std::size_t{10'000}}) {
    HostileClient hostile(blobs_, kHostile);
    const Upload upload = announce(hostile);
    ASSERT_EQ(upload.reference.size_bytes, 84284U);  // (70 · 300 + 70 + 1) floats
    EXPECT_EQ(parse_grant(hostile.await(FrameType::grant)), 0U);
    for (std::size_t at = 0; at < 84284; at += piece) hostile.send(chunk(upload, at, std::min<std::size_t>(piece, 84284 - at)));
    EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::accepted);
  }
  blobs_.await_rounds(1);
}

TEST_F(Uploads, PiecesOutOfPlaceEndTheConnection) {
  EXPECT_THAT(verdict_on_upload([](HostileClient& hostile, const Upload& upload) { hostile.send(chunk(upload, upload.granted + 100, 100)); }),
              AllOf(HasSubstr("a chunk at offset"), HasSubstr(", expected ")));
  EXPECT_THAT(verdict_on_upload([](HostileClient& hostile, const Upload& upload) {
                hostile.send(chunk(upload, upload.granted, 100));
                hostile.send(chunk(upload, upload.granted, 100));  // the same piece again
              }),
              AllOf(HasSubstr("a chunk at offset"), HasSubstr(", expected ")));
  EXPECT_THAT(verdict_on_upload([](HostileClient& hostile, const Upload& upload) {
                Bytes longer(90'000);
                hostile.send(encode_chunk(upload.request, upload.granted, SharedBuffer(std::move(longer))));
              }),
              HasSubstr("beyond the end"));
  EXPECT_THAT(verdict_on_upload([](HostileClient& hostile, const Upload& upload) {
                hostile.send(encode_chunk(upload.request + 1, upload.granted, upload.message.body().slice(0, 100)));
              }),
              HasSubstr("nothing was granted"));
  EXPECT_THAT(verdict_on_upload([](HostileClient& hostile, const Upload& upload) {
                hostile.send(chunk(upload, upload.granted, 84284 - upload.granted));
                hostile.send(encode_chunk(upload.request, 84284, upload.message.body().slice(0, 1)));
              }),
              HasSubstr("nothing was granted"));
  blobs_.await_rounds(2);
}

TEST_F(Uploads, APieceWithoutAGrantEndsTheConnection) {
  HostileClient hostile(blobs_, kHostile);
  const Message task = hostile.await_task();
  hostile.send(encode_chunk(hostile.request(), 0, task.body().slice(0, 100)));
  EXPECT_THAT(hostile.verdict(), HasSubstr("nothing was granted"));
  blobs_.await_rounds(2);
}

TEST_F(Uploads, AnotherBlobThanAnnouncedIsMalformed) {
  HostileClient hostile(blobs_, kHostile);
  const Upload upload = announce(hostile, [](BlobReference& reference) { reference.sha256[0] ^= std::byte{1}; });
  hostile.await(FrameType::grant);
  hostile.send(chunk(upload, 0, 84284));
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::malformed);
  hostile.probe().close();
  blobs_.await_rounds(2);
}

TEST_F(Uploads, ALongerOneThanTheModelGetsNoGrant) {
  for (const std::uint64_t size : {std::uint64_t{84288}, std::uint64_t{1} << 40U, (std::uint64_t{1} << 63U) - 1}) {
    const std::uint64_t before = peak_bytes();
    HostileClient hostile(blobs_, kHostile);
    announce(hostile, [&](BlobReference& reference) { reference.size_bytes = size; });
    EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::malformed) << size << " bytes";
    EXPECT_LT(peak_bytes() - before, 64U << 20U);
  }
  blobs_.await_rounds(2);
}

TEST_F(Uploads, AShorterOneIsMalformed) {
  HostileClient hostile(blobs_, kHostile);
  const Message task = hostile.await_task();
  const Message honest = test::honest_answer(blobs_.prepared(), kHostile, task);
  const Message cut(honest.type(), honest.round(), honest.header(), honest.body().slice(0, 70'000));
  const BlobReference reference = reference_to(cut.body().span());
  hostile.send(frame_of(cut, hostile.request(), reference));
  hostile.await(FrameType::grant);
  hostile.send(encode_chunk(hostile.request(), 0, cut.body()));
  EXPECT_EQ(parse_receipt(hostile.await(FrameType::receipt)).outcome, Outcome::malformed);
  hostile.probe().close();
  blobs_.await_rounds(2);
}

TEST_F(Uploads, BlobsThatNobodyHasAreNotSent) {
  const auto asks = [&](const Fetch& fetch) {
    HostileClient hostile(blobs_, kHostile);
    hostile.await(FrameType::train);
    hostile.send(encode(fetch, 7));
    return hostile.verdict();
  };
  BlobReference unknown;
  unknown.size_bytes = 84284;
  // It stays connected and gets nothing: the round may have been closed meanwhile, which is no fault of a client.
  EXPECT_EQ(asks(Fetch{unknown, 0}), "welcome to stay");
  unknown.size_bytes = (std::uint64_t{1} << 63U) - 1;
  EXPECT_EQ(asks(Fetch{unknown, 0}), "welcome to stay");
  blobs_.await_rounds(2);
}

}  // namespace
}  // namespace fl
