#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "fl_core/base/sha256.h"
#include "fl_core/config/plan.h"
#include "fl_core/net/probe.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"
#include "simulations/cli/conformance.h"
#include "simulations/cli/conformance_offences.h"

namespace fl::cli {
namespace {

using Milliseconds = std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using RawBytes = std::vector<std::byte>;

/// A round, a task number and an offset that no server has given.
constexpr std::uint64_t kStrangeRequest = 0xfeedfacecafebeefULL;

std::string name_of(const Frame& frame) { return frame_type_name(static_cast<std::uint8_t>(frame.head.type)); }

/// The test of one server. We are the client.
class ServerTest {
 public:
  ServerTest(const ConformanceOptions& options, Checks& checks) : options_(options), checks_(checks), context_(TlsRole::client, options.tls) {}

  void run() {
    try {
      connect().close();
    } catch (const ProbeEnded& error) {
      // Nobody there says nothing about what a server would do.
      const std::string words = error.what();
      if (words.starts_with("cannot connect")) throw IoError(words + "; is the server running there?");
    } catch (const ProbeTimeout&) {
    }
    opening();
    handshakes();
    identity();
    offences();
    exchanges();
    if (options_.passive) {
      checks_.skip("6", "gives a task to a client that is ready", "--passive");
    } else {
      tasks();
    }
    checks_.check("8", "welcomes this client again after all of that", [&] { leave(enter()); });
  }

 private:
  /// A connection that was welcomed.
  struct Visit {
    Probe probe;
    Welcome welcome;
    bool ready = false;
  };

  Probe connect(const ProbeManners& manners = {}) const {
    return Probe::connect(options_.host, options_.port, options_.server_name, context_, options_.limit, manners);
  }

  Hello hello(bool ready) const {
    Hello hello;
    hello.software = "fl conformance " FL_VERSION;
    hello.examples = options_.examples;
    hello.input = options_.input;
    hello.classes = options_.classes;
    hello.ready = ready;
    hello.plan_sha256 = plan_sha256_;
    return hello;
  }

  Visit enter(bool ready = false) {
    Probe probe = connect();
    probe.write(encode(hello(ready)), options_.limit);
    const Frame answer = probe.read_frame(options_.limit);
    if (answer.head.type == FrameType::refused) throw CheckFailed("refused: " + parse_refused(answer).reason);
    Welcome welcome = parse_welcome(answer);
    return {std::move(probe), std::move(welcome), ready};
  }

  void leave(Visit visit) {
    visit.probe.write(encode(Goodbye{"tested", 0, false}), options_.limit);
    expect_end(visit.probe);
  }

  /// The server may say something before, and should send `refused`; then it must close.
  std::optional<Refused> expect_end(Probe& probe) {
    std::optional<Refused> refused;
    const auto end = Clock::now() + options_.limit;
    try {
      while (Clock::now() < end) {
        const Frame frame = probe.read_frame(options_.limit);
        expect(!refused, "it says something after 'refused': " + name_of(frame));
        if (frame.head.type == FrameType::refused) refused = parse_refused(frame);
      }
    } catch (const ProbeEnded&) {
      return refused;
    } catch (const ProbeTimeout&) {
    }
    throw CheckFailed("the connection stays open");
  }

  std::optional<Refused> offend(Probe& probe, const RawBytes& bytes) {
    try {
      probe.write(bytes, options_.limit);
    } catch (const ProbeEnded&) {
      return std::nullopt;
    }
    return expect_end(probe);
  }

  /// The next frame of this type and request; others are passed over, heartbeats are sent when nothing comes.
  Frame next(Visit& visit, const std::string& what, std::chrono::milliseconds wait, const std::function<bool(const Frame&)>& wanted) {
    const auto end = Clock::now() + wait;
    while (Clock::now() < end) {
      if (!visit.probe.readable(Milliseconds(300 * visit.welcome.heartbeat_s))) {
        visit.probe.write(encode(Heartbeat{visit.ready, 0}, ++beats_), options_.limit);
        continue;
      }
      Frame frame = visit.probe.read_frame(options_.limit);
      if (wanted(frame)) return frame;
      if (frame.head.type == FrameType::refused) throw CheckFailed("refused: " + parse_refused(frame).reason);
      if (frame.head.type == FrameType::goodbye) throw CheckFailed("the server said goodbye: " + parse_goodbye(frame).reason);
    }
    throw CheckFailed("no " + what + " within " + std::to_string(std::chrono::duration_cast<std::chrono::seconds>(wait).count()) + " s");
  }

  void expect_alive(Visit& visit) {
    const std::uint64_t beat = ++beats_;
    visit.probe.write(encode(Heartbeat{visit.ready, 0}, beat), options_.limit);
    const Frame reply = next(visit, "heartbeat_reply", options_.limit, [&](const Frame& frame) {
      return frame.head.type == FrameType::heartbeat_reply && frame.head.request == beat;
    });
    parse_heartbeat_reply(reply);
  }

  void opening() {
    checks_.must("1", "shakes hands over TLS 1.3 with both certificates and ALPN", [&] { connect().close(); });
    checks_.must("4", "answers hello with a well-formed welcome that brings the plan", [&] {
      Visit visit = enter();
      first_ = visit.welcome;
      expect(visit.welcome.protocol == kProtocolVersion, "protocol " + std::to_string(visit.welcome.protocol));
      expect(visit.welcome.plan.size() > 0, "the welcome has no body, though the hello named no plan");
      expect(!visit.probe.resumable(), "the server offers to resume TLS sessions (§1)");
      leave(std::move(visit));
    });
    checks_.check("9", "its plan has the hash that the welcome names, and is one", [&] {
      const auto bytes = first_.plan.span();
      expect(sha256_hex(bytes) == first_.plan_sha256, "SHA-256 of the body is " + sha256_hex(bytes) + ", the welcome says " + first_.plan_sha256);
      try {
        const ClientPlan plan = parse_plan(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
        secure_aggregation_ = plan.secure_aggregation.has_value();
        expect(shape_text(plan.shape) == options_.input && plan.shape.classes == static_cast<std::int64_t>(options_.classes), "its shape is not what we were welcomed with");
      } catch (const ConfigError& error) {
        throw CheckFailed(error.what());
      }
    });
    plan_sha256_ = first_.plan_sha256;
  }

  void handshakes() {
    const auto refuses = [&](const char* what, const ProbeManners& manners) {
      checks_.check("1", what, [&] {
        std::optional<Frame> got;
        try {
          Probe probe = connect(manners);
          // A TLS 1.3 client is done before the server has judged it, so the refusal may come with the first read.
          probe.write(encode(hello(false)), options_.limit);
          got = probe.read_frame(options_.limit);
        } catch (const ProbeEnded&) {
        }
        expect(!got, "the server answered");
      });
    };
    ProbeManners old;
    old.tls_1_2 = true;
    refuses("refuses TLS 1.2", old);
    ProbeManners nobody;
    nobody.show_certificate = false;
    refuses("refuses a client without a certificate", nobody);
    ProbeManners other;
    other.application = "h2";
    refuses("refuses another application protocol", other);
    other.application = "";
    refuses("refuses a client that names no application protocol", other);
    checks_.check("1", "answers bytes that are no TLS with nothing but an alert", [&] {
      const std::string request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
      const auto answer = answer_to_plain_bytes(options_.host, options_.port, std::as_bytes(std::span(request)), options_.limit);
      // A TLS alert record: type 21, at most 7 bytes.
      expect(answer.empty() || (answer[0] == std::byte{21} && answer.size() <= 7), "it answered " + std::to_string(answer.size()) + " bytes");
    });
  }

  void identity() {
    checks_.check("4", "leaves out the plan that the client holds, and gives it the same number", [&] {
      Visit visit = enter();
      expect(visit.welcome.plan.size() == 0, "the plan came again");
      expect(visit.welcome.client == first_.client, "client " + std::to_string(visit.welcome.client) + ", before it was " + std::to_string(first_.client));
      expect(visit.welcome.run == first_.run, "another run");
      leave(std::move(visit));
    });
    checks_.check("4", "ends the older connection of an identity with 'refused' (fenced)", [&] {
      Visit older = enter();
      Visit newer = enter();
      const std::optional<Refused> refused = expect_end(older.probe);
      expect(refused.has_value(), "it was closed without 'refused'");
      expect(refused->code == Refusal::fenced, "the code is " + std::to_string(static_cast<int>(refused->code)));
      expect_alive(newer);
      leave(std::move(newer));
    });
    refuses_hello("refuses another protocol version", Refusal::protocol, [](Hello& hello) { hello.protocol = 2; });
    refuses_hello("refuses examples of another shape", Refusal::mismatch, [](Hello& hello) { hello.input = "1x2x3x4x5"; });
    refuses_hello("refuses another number of classes", Refusal::mismatch, [](Hello& hello) { hello.classes += 1; });
    refuses_hello("refuses a client without examples", Refusal::mismatch, [](Hello& hello) { hello.examples = 0; });
  }

  void refuses_hello(const char* what, Refusal code, const std::function<void(Hello&)>& change) {
    checks_.check("4", what, [&] {
      Probe probe = connect();
      Hello wrong = hello(false);
      change(wrong);
      const std::optional<Refused> refused = offend(probe, frame_bytes(encode(wrong)));
      expect(refused.has_value(), "it was closed without 'refused'");
      expect(refused->code == code, "the code is " + std::to_string(static_cast<int>(refused->code)) + ": " + refused->reason);
    });
  }

  void offences() {
    for (const Offence& offence : offences_of_a_client()) {
      checks_.check(offence.section, "ends the connection for " + offence.what, [&] {
        Visit visit = enter();
        offend(visit.probe, offence.bytes);
      });
    }
    checks_.check("8", "ends a connection that does not begin with hello", [&] {
      Probe probe = connect();
      offend(probe, frame_bytes(encode(Heartbeat{}, 1)));
    });
    checks_.check("8", "ends the connection for a second hello", [&] {
      Visit visit = enter();
      offend(visit.probe, frame_bytes(encode(hello(false))));
    });
    const std::vector<Frame> servers_own = {encode(first_), encode(Refused{}), encode_heartbeat_reply(1), encode_grant(1, 0), encode(Receipt{}, 1, 1),
                                            frame_of(encode_task(Task{TaskKind::train, 1, 0, 0, SharedBuffer(Bytes(4))}), 1),
                                            frame_of(encode_secure(MessageType::secure_step, some_secure(2), SharedBuffer(Bytes(4))), 1)};
    for (const Frame& frame : servers_own) {
      checks_.check("8", "ends the connection for a client that sends " + name_of(frame), [&] {
        Visit visit = enter();
        offend(visit.probe, frame_bytes(frame));
      });
    }
    checks_.check("8", "survives a frame that is cut in the middle", [&] {
      Visit visit = enter();
      const RawBytes whole = frame_bytes(encode(Heartbeat{}, 1));
      visit.probe.write(std::span(whole).first(40), options_.limit);
      visit.probe.reset();
      leave(enter());
    });
  }

  void exchanges() {
    checks_.check("5", "answers heartbeats, each with its request", [&] {
      Visit visit = enter();
      for (int i = 0; i < 3; ++i) expect_alive(visit);
      leave(std::move(visit));
    });
    checks_.check("5", "answers heartbeats that come in one piece, byte by byte", [&] {
      Visit visit = enter();
      RawBytes two = frame_bytes(encode(Heartbeat{false, 0}, 7'001));
      for (const std::byte byte : frame_bytes(encode(Heartbeat{false, 0}, 7'002))) two.push_back(byte);
      for (const std::byte& byte : two) visit.probe.write({&byte, 1}, options_.limit);
      for (const std::uint64_t request : {7'001U, 7'002U}) {
        const Frame reply = next(visit, "heartbeat_reply", options_.limit, [](const Frame& frame) { return frame.head.type == FrameType::heartbeat_reply; });
        parse_heartbeat_reply(reply);
        expect(reply.head.request == request, "request " + std::to_string(reply.head.request) + ", expected " + std::to_string(request));
      }
      leave(std::move(visit));
    });
    checks_.check("7", "ignores a fetch of a blob that no task refers to", [&] {
      Visit visit = enter();
      visit.probe.write(encode(Fetch{strange_blob(), 0}, 1), options_.limit);
      expect_alive(visit);
      leave(std::move(visit));
    });
    checks_.check("7", "ends the connection for a chunk that it granted nothing for", [&] {
      Visit visit = enter();
      offend(visit.probe, frame_bytes(encode_chunk(kStrangeRequest, 0, SharedBuffer(Bytes(100)))));
    });
    const auto unknown_answer = [&](const char* what, const Frame& answer) {
      checks_.check("6", what, [&] {
        Visit visit = enter();
        visit.probe.write(answer, options_.limit);
        expect_receipt(visit, answer.head, {Outcome::wrong_round}, options_.limit);
        expect_alive(visit);
        leave(std::move(visit));
      });
    };
    unknown_answer("answers an update for a task that it never gave with a receipt (wrong_round)", frame_of(encode_update(some_update(1), SharedBuffer(Bytes(4))), kStrangeRequest));
    unknown_answer("the same for an update by reference, which it does not grant", frame_of(encode_update(some_update(1), SharedBuffer()), kStrangeRequest, strange_blob()));
    unknown_answer("the same for a failure", frame_of(encode_failure(1, "tested"), kStrangeRequest));
    // Without secure aggregation a server need not know these frames (§9).
    if (secure_aggregation_) {
      unknown_answer("the same for an answer of secure aggregation", frame_of(encode_secure(MessageType::secure_answer, some_secure(1), SharedBuffer(Bytes(4))), kStrangeRequest));
    }
  }

  static SecureHeader some_secure(std::uint32_t step) {
    SecureHeader secure;
    secure.round = 1;
    secure.step = step;
    return secure;
  }

  static UpdateHeader some_update(std::uint32_t round) {
    UpdateHeader update;
    update.round = round;
    update.codec = "identity";
    return update;
  }

  void expect_receipt(Visit& visit, const FrameHeader& question, const std::vector<Outcome>& outcomes, Milliseconds wait) {
    const Frame frame = next(visit, "receipt", wait, [&](const Frame& one) {
      expect(one.head.type != FrameType::grant || one.head.request != question.request, "the server grants it");
      return one.head.type == FrameType::receipt && one.head.request == question.request;
    });
    const Receipt receipt = parse_receipt(frame);
    expect(frame.head.round == question.round, "the receipt is for round " + std::to_string(frame.head.round) + ", the task for " + std::to_string(question.round));
    expect(std::find(outcomes.begin(), outcomes.end(), receipt.outcome) != outcomes.end(), std::string("the outcome is ") + outcome_name(receipt.outcome));
  }

  // --- tasks -----------------------------------------------------------------------------------------------------------------

  static bool is_task(const Frame& frame) { return frame.head.type == FrameType::train || frame.head.type == FrameType::evaluate; }

  /// The three keys of a task; its layout is unknown to us.
  static void check_task(const Frame& task) {
    HeaderReader header(task.header.span(), "task");
    std::uint32_t round = 0;
    std::uint32_t version = 0;
    std::uint64_t fingerprint = 0;
    header.integer("round", round);
    header.integer("model_version", version);
    header.integer("fingerprint", fingerprint);
    header.finish();
    expect(round == task.head.round, "round " + std::to_string(round) + " in a frame of round " + std::to_string(task.head.round));
    const std::uint64_t size = task.head.flags == kFlagBlob ? parse_blob_reference(task.body.span()).size_bytes : task.body.size();
    expect(size > 0 && size % sizeof(float) == 0, "a body of " + std::to_string(size) + " bytes, expected a model of float32");
  }

  Frame next_task(Visit& visit) { return next(visit, "task", options_.wait, is_task); }

  void tasks() {
    checks_.say("waiting for a task, at most " + std::to_string(options_.wait.count()) + " s");
    std::optional<Visit> visit;
    Frame task;
    checks_.must("6", "gives a task to a client that is ready", [&] {
      visit.emplace(enter(true));
      task = next_task(*visit);
      check_task(task);
    });
    if (task.head.flags == kFlagBlob) {
      fetch(visit, task);
    } else {
      checks_.skip("7", "sends a blob, and goes on where a broken connection ended", "the model of this run fits into a frame");
    }
    checks_.check("6", "settles a task that failed with a receipt", [&] {
      visit->probe.write(frame_of(encode_failure(task.head.round, "fl conformance does not train"), task.head.request), options_.limit);
      expect_receipt(*visit, task.head, {Outcome::failed, Outcome::late}, options_.wait);
    });
    checks_.check("6", "answers a second answer to a settled task with a receipt (wrong_round)", [&] {
      visit->probe.write(frame_of(encode_failure(task.head.round, "again"), task.head.request), options_.limit);
      expect_receipt(*visit, task.head, {Outcome::wrong_round}, options_.limit);
    });
    oversized_update(*visit);
    checks_.check("4", "closes after our goodbye", [&] { leave(std::move(*visit)); });
  }

  void oversized_update(Visit& visit) {
    const char* what = "refuses an update that is longer than any of this model, without granting it";
    Frame task;
    try {
      task = next_task(visit);
    } catch (const CheckFailed&) {
      checks_.skip("7", what, "no second task came");
      return;
    }
    checks_.check("7", what, [&] {
      BlobReference blob = strange_blob();
      blob.size_bytes = std::uint64_t{1} << 62U;
      visit.probe.write(frame_of(encode_update(some_update(task.head.round), SharedBuffer()), task.head.request, blob), options_.limit);
      expect_receipt(visit, task.head, {Outcome::malformed, Outcome::wrong_model, Outcome::late}, options_.wait);
    });
  }

  /// Reads chunks of `request` until `blob` holds `until` bytes; returns whether they were contiguous and not too many.
  void receive(Visit& visit, std::uint64_t request, std::uint64_t size, std::uint64_t until, RawBytes& blob) {
    while (blob.size() < until) {
      const Frame frame = next(visit, "chunk", options_.limit, [](const Frame& one) { return one.head.type == FrameType::chunk; });
      const std::uint64_t offset = parse_chunk(frame.head, frame.header.span());
      expect(frame.head.request == request, "a chunk of request " + std::to_string(frame.head.request) + ", we fetched with " + std::to_string(request));
      expect(offset == blob.size(), "a chunk at " + std::to_string(offset) + ", expected " + std::to_string(blob.size()));
      expect(frame.body.size() <= size - offset, "a chunk beyond the end of the blob");
      blob.insert(blob.end(), frame.body.span().begin(), frame.body.span().end());
    }
  }

  void fetch(std::optional<Visit>& visit, Frame& task) {
    const BlobReference reference = parse_blob_reference(task.body.span());
    RawBytes blob;
    checks_.must("7", "sends a fetched blob as chunks in order", [&] {
      visit->probe.write(encode(Fetch{reference, 0}, 11), options_.limit);
      receive(*visit, 11, reference.size_bytes, 1, blob);
    });
    if (blob.size() == reference.size_bytes) blob.resize(blob.size() / 2);
    checks_.must("6", "sends the unanswered task again after a broken connection, with the same number", [&] {
      visit->probe.reset();
      visit.reset();
      visit.emplace(enter(true));
      const Frame again = next_task(*visit);
      const bool same = again.head.type == task.head.type && again.head.round == task.head.round && std::ranges::equal(again.header.span(), task.header.span()) &&
                        std::ranges::equal(again.body.span(), task.body.span());
      expect(same, "it sends another task, of round " + std::to_string(again.head.round));
      expect(again.head.request == task.head.request, "the number is " + std::to_string(again.head.request) + ", it was " + std::to_string(task.head.request));
    });
    checks_.check("7", "sends the rest of the blob from the offset that was asked for, " + std::to_string(blob.size()), [&] {
      visit->probe.write(encode(Fetch{reference, blob.size()}, 12), options_.limit);
      receive(*visit, 12, reference.size_bytes, reference.size_bytes, blob);
    });
    checks_.check("7", "its blob has the hash of the reference", [&] {
      expect(reference_to(blob) == reference, "SHA-256 is " + reference_to(blob).hex() + ", expected " + reference.hex());
    });
  }

  const ConformanceOptions& options_;
  Checks& checks_;
  TlsContext context_;
  Welcome first_;
  std::string plan_sha256_;
  bool secure_aggregation_ = false;  ///< the run's plan has it
  std::uint64_t beats_ = 0;
};

}  // namespace

void test_server(const ConformanceOptions& options, Checks& checks) { ServerTest(options, checks).run(); }

}  // namespace fl::cli
