#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "fl_core/base/sha256.h"
#include "fl_core/config/plan.h"
#include "fl_core/ml/model.h"
#include "fl_core/net/probe.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/limits.h"
#include "simulations/cli/conformance.h"

namespace fl::cli {
namespace {

using Milliseconds = std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using RawBytes = std::vector<std::byte>;

constexpr std::uint32_t kHeartbeat_s = 1;
constexpr std::uint32_t kRetry_s = 2;
/// Floats of the model that we have trained: more than one chunk, and not many.
constexpr std::int64_t kModelFloats = 400'000;

std::string name_of(const Frame& frame) { return frame_type_name(static_cast<std::uint8_t>(frame.head.type)); }

/// "1x28x28" and classes as a shape.
ExampleShape shape_of(const Hello& hello) {
  ExampleShape shape;
  std::uint64_t extent = 0;
  for (std::size_t i = 0; i <= hello.input.size(); ++i) {
    const char c = i < hello.input.size() ? hello.input[i] : 'x';
    if (c == 'x') {
      expect(extent > 0, "'input' is '" + hello.input + "', expected extents joined by x");
      shape.input.push_back(static_cast<std::int64_t>(std::exchange(extent, 0)));
    } else {
      expect(c >= '0' && c <= '9' && extent <= 1'000'000, "'input' is '" + hello.input + "', expected extents joined by x");
      extent = 10 * extent + static_cast<std::uint64_t>(c - '0');
    }
  }
  expect(hello.classes > 0 && hello.classes <= 1'000'000, "'classes' is " + std::to_string(hello.classes));
  shape.classes = hello.classes;
  return shape;
}

ClientPlan plan_for(const ExampleShape& shape) {
  using nlohmann::json;
  const auto width = std::clamp<std::int64_t>(kModelFloats / (static_cast<std::int64_t>(shape.input_size()) + shape.classes), 1, 4096);
  ClientPlan plan;
  plan.model = json{{"name", "spec"}, {"stages", json::array({{{"flatten", json::object()}}, {{"linear", {{"out", width}}}}, {{"relu", json::object()}}, {{"linear", {{"out", "classes"}}}}})}};
  plan.trainer = json{{"name", "sgd"}, {"batch_size", 10}, {"learning_rate", 0.01}};
  plan.codec = json{{"name", "identity"}};
  plan.shape = shape;
  return plan;
}

/// The test of one client. We are the server.
class ClientTest {
 public:
  ClientTest(const ConformanceOptions& options, Checks& checks)
      : options_(options), checks_(checks), context_(TlsRole::server, options.tls), listener_(options.host, options.port) {
    checks_.say("listening on " + options.host + ":" + std::to_string(listener_.port()) + "; start the client within " + std::to_string(options.wait.count()) + " s");
  }

  void run() {
    opening();
    broken_download();
    broken_upload();
    repetition();
    other_tasks();
    damaged_blob();
    endings();
  }

 private:
  // --- connections -----------------------------------------------------------------------------------------------------------

  void receive() {
    probe_.emplace(Probe::accept(listener_.accept(options_.wait), context_, options_.limit));
    const Frame first = probe_->read_frame(options_.limit);
    hello_ = parse_hello(first);
  }

  void welcome() {
    Welcome welcome;
    welcome.run = "c0ffee00c0ffee00c0ffee00c0ffee00";
    welcome.client = 0;
    welcome.heartbeat_s = kHeartbeat_s;
    welcome.plan_sha256 = plan_sha256_;
    if (hello_.plan_sha256 != plan_sha256_) welcome.plan = plan_;
    probe_->write(encode(welcome), options_.limit);
  }

  void come_back(const std::string& section, const std::string& what) {
    checks_.must(section, what, [&] { receive(); });
    welcome();
  }

  void expect_end() {
    const auto end = Clock::now() + options_.limit;
    try {
      while (Clock::now() < end) {
        if (is_heartbeat(probe_->read_frame(options_.limit))) continue;  // it may have been on its way
      }
    } catch (const ProbeEnded&) {
      probe_.reset();
      return;
    } catch (const ProbeTimeout&) {
    }
    throw CheckFailed("the client keeps the connection open");
  }

  void cut() {
    probe_->reset();
    probe_.reset();
  }

  bool is_heartbeat(const Frame& frame) {
    if (frame.head.type != FrameType::heartbeat) return false;
    last_beat_ = parse_heartbeat(frame);
    ++beats_;
    return true;
  }

  /// The next frame that is no heartbeat; those are answered. Nothing once `beats` of them have come.
  std::optional<Frame> next(int beats) {
    const int until = beats_ + beats;
    while (beats_ < until) {
      Frame frame = probe_->read_frame(Milliseconds(3000 * kHeartbeat_s));
      if (!is_heartbeat(frame)) return frame;
      probe_->write(encode_heartbeat_reply(frame.head.request), options_.limit);
    }
    return std::nullopt;
  }

  /// The next frame that is no heartbeat, within the time that training may take.
  Frame answer(const std::string& what) {
    std::optional<Frame> frame = next(static_cast<int>(options_.wait.count() / kHeartbeat_s));
    if (!frame) throw CheckFailed("no " + what + " within " + std::to_string(options_.wait.count()) + " s");
    if (frame->head.type == FrameType::failed) throw CheckFailed("the client failed: " + parse_failure(message_of(*frame, SharedBuffer())));
    if (frame->head.type == FrameType::goodbye) throw CheckFailed("the client said goodbye: " + parse_goodbye(*frame).reason);
    return std::move(*frame);
  }

  void expect_silence(const std::string& when) {
    const std::optional<Frame> frame = next(2);
    expect(!frame, "it sends " + (frame ? name_of(*frame) : std::string()) + " " + when);
  }

  // --- tasks -----------------------------------------------------------------------------------------------------------------

  void make_model() {
    const ClientPlan plan = plan_for(shape_of(hello_));
    const std::string text = plan_text(plan);
    plan_ = SharedBuffer::copy_of(std::as_bytes(std::span(text)));
    plan_sha256_ = sha256_hex(plan_.span());
    model_ = models().create(plan.model, "model", ModelContext{plan.shape, "model"})->make(1);
    const auto weights = model_->weights();
    first_weights_ = SharedBuffer::copy_of(std::as_bytes(weights));
    weights[0] += 1;
    other_weights_ = SharedBuffer::copy_of(std::as_bytes(weights));
  }

  Task task_of(TaskKind kind, std::uint32_t round, const SharedBuffer& weights) const {
    Task task;
    task.kind = kind;
    task.round = round;
    task.model_version = round - 1;
    task.fingerprint = model_->layout()->fingerprint();
    task.weights = weights;
    return task;
  }

  void give(const Task& task, std::uint64_t request) {
    task_ = task;
    probe_->write(frame_of(encode_task(task), request), options_.limit);
  }

  void settle(std::uint64_t request, Outcome outcome) { probe_->write(encode(Receipt{outcome}, request, task_.round), options_.limit); }

  /// The client's question for the model of the task; its offset.
  std::uint64_t expect_fetch() {
    const Frame frame = answer("fetch");
    expect(frame.head.type == FrameType::fetch, "it sends " + name_of(frame));
    const Fetch fetch = parse_fetch(frame);
    expect(fetch.blob == reference_to(task_.weights.span()), "it fetches another blob than the task names");
    fetch_request_ = frame.head.request;
    return fetch.offset;
  }

  void send_model(const SharedBuffer& bytes, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t at = from; at < to;) {
      const std::uint64_t size = std::min<std::uint64_t>(to - at, limits::kChunkBytes / 2);
      probe_->write(encode_chunk(fetch_request_, at, bytes.slice(static_cast<std::size_t>(at), static_cast<std::size_t>(size))), options_.limit);
      at += size;
    }
  }

  /// The client's update by reference, checked against the task.
  BlobReference expect_update(std::uint64_t request) {
    const Frame frame = answer("update");
    expect(frame.head.type == FrameType::update, "it sends " + name_of(frame));
    expect(frame.head.request == request, "its request is " + std::to_string(frame.head.request) + ", the task's is " + std::to_string(request));
    expect(frame.head.round == task_.round, "its round is " + std::to_string(frame.head.round));
    const UpdateHeader update = parse_update_header(message_of(frame, SharedBuffer()));
    expect(update.model_version == task_.model_version && update.fingerprint == task_.fingerprint, "it is for another model version or layout");
    expect(update.codec == "identity", "its codec is '" + update.codec + "', the plan says identity");
    expect(update.metrics.examples > 0, "it trained on no examples");
    const std::uint64_t size = task_.weights.size();
    expect(frame.head.flags == kFlagBlob, "an update of " + std::to_string(size) + " bytes is no blob");
    const BlobReference reference = parse_blob_reference(frame.body.span());
    expect(reference.size_bytes == size, "it has " + std::to_string(reference.size_bytes) + " bytes, expected " + std::to_string(size));
    return reference;
  }

  /// Chunks of the update from where `update_` ends until it holds `until` bytes.
  void receive_update(std::uint64_t request, std::uint64_t until) {
    while (update_.size() < until) {
      const Frame frame = answer("chunk");
      expect(frame.head.type == FrameType::chunk && frame.head.request == request, "it sends " + name_of(frame) + ", request " + std::to_string(frame.head.request));
      const std::uint64_t offset = parse_chunk(frame.head, frame.header.span());
      expect(offset == update_.size(), "a chunk at " + std::to_string(offset) + ", expected " + std::to_string(update_.size()));
      expect(frame.body.size() <= task_.weights.size() - offset, "a chunk beyond the end of the update");
      update_.insert(update_.end(), frame.body.span().begin(), frame.body.span().end());
    }
  }

  // --- the test --------------------------------------------------------------------------------------------------------------

  void opening() {
    checks_.must("1", "connects over TLS 1.3 with its certificate and ALPN, and begins with a well-formed hello", [&] { receive(); });
    checks_.must("4", "its hello names protocol 1, its examples and their shape", [&] {
      expect(hello_.protocol == kProtocolVersion, "protocol " + std::to_string(hello_.protocol));
      expect(hello_.examples > 0, "no examples");
      make_model();
    });
    welcome();
    checks_.check("5", "sends heartbeats while it is idle", [&] { expect_silence("before it got a task"); });
    checks_.must("5", "is ready to train", [&] { expect(last_beat_.ready, "'ready' is 0: its policy forbids training now"); });
    checks_.check("6", "ignores a receipt for a task that it does not know", [&] {
      task_.round = 1;
      settle(999, Outcome::late);
      expect_silence("after it");
    });
  }

  void broken_download() {
    give(task_of(TaskKind::train, 1, first_weights_), 1);
    checks_.must("7", "fetches a model that it does not hold", [&] { expect(expect_fetch() == 0, "not from 0 on"); });
    const std::uint64_t sent = first_weights_.size() / 2;
    send_model(first_weights_, 0, sent);
    // The next chunk is cut in the middle.
    const RawBytes cut_chunk = frame_bytes(encode_chunk(fetch_request_, sent, first_weights_.slice(static_cast<std::size_t>(sent), 10'000)));
    probe_->write(std::span(cut_chunk).first(5'000), options_.limit);
    checks_.check("5", "sends heartbeats while it waits for a blob", [&] {
      const int before = beats_;
      const Frame frame = probe_->read_frame(Milliseconds(3000 * kHeartbeat_s));
      expect(is_heartbeat(frame) && beats_ > before, "it sends " + name_of(frame));
    });
    cut();
    come_back("4", "comes back after a broken connection");
    checks_.check("4", "its hello names the plan that it holds", [&] { expect(hello_.plan_sha256 == plan_sha256_, "'plan' is '" + hello_.plan_sha256 + "', expected " + plan_sha256_); });
    give(task_, 1);
    std::uint64_t offset = 0;
    checks_.must("7", "goes on fetching at the offset that it holds", [&] {
      offset = expect_fetch();
      expect(offset > 0, "it fetches everything again");
      expect(offset <= sent + 10'000, "it says that it holds more than was sent");
    });
    send_model(first_weights_, offset, first_weights_.size());
  }

  void broken_upload() {
    checks_.must("6", "trains, and offers its update by reference", [&] { reference_ = expect_update(1); });
    checks_.check("7", "sends no chunk of it before the grant", [&] { expect_silence("before the grant"); });
    checks_.must("7", "sends the update from the granted offset on", [&] {
      probe_->write(encode_grant(1, 0), options_.limit);
      receive_update(1, 1);
    });
    cut();
    come_back("4", "comes back after a connection that broke during its upload");
    give(task_, 1);
    checks_.must("6", "recognises the task, and offers the same update without training again", [&] {
      expect(expect_update(1) == reference_, "it offers another update: it trained twice, or its result is not kept");
    });
    checks_.must("7", "goes on sending at the granted offset, to the end", [&] {
      update_.resize(std::max<std::size_t>(1, update_.size() / 2));
      probe_->write(encode_grant(1, update_.size()), options_.limit);
      receive_update(1, reference_.size_bytes);
    });
    checks_.check("7", "its update has the hash of the reference", [&] { expect(reference_to(update_) == reference_, "SHA-256 is " + reference_to(update_).hex()); });
    checks_.check("6", "its update is finite, within the bound, and moves the model", [&] {
      std::vector<float> delta(update_.size() / sizeof(float));
      std::memcpy(delta.data(), update_.data(), update_.size());
      expect(std::ranges::all_of(delta, [](float value) { return std::abs(value) < 64; }), "a value is not finite or not below 64");
      expect(std::ranges::any_of(delta, [](float value) { return value != 0; }), "it is all zero");
    });
  }

  void repetition() {
    cut();
    come_back("4", "comes back while its update has no receipt");
    give(task_, 2);  // as a server that was restarted would
    checks_.check("6", "offers the same update for the same task under a new number", [&] { expect(expect_update(2) == reference_, "it offers another update"); });
    settle(2, Outcome::accepted);
    checks_.check("6", "is silent after the receipt", [&] { expect_silence("after the receipt"); });
  }

  void other_tasks() {
    give(task_of(TaskKind::evaluate, 1, first_weights_), 3);
    checks_.must("6", "measures a model that it holds without fetching it", [&] {
      const Frame frame = answer("update");
      expect(frame.head.type == FrameType::update && frame.head.request == 3, "it sends " + name_of(frame) + ", request " + std::to_string(frame.head.request));
      expect(frame.head.flags == 0 && frame.body.size() == 0, "the answer has a body");
      const UpdateHeader update = parse_update_header(message_of(frame, SharedBuffer()));
      expect(update.weight == 1 && update.steps == 0, "weight " + std::to_string(update.weight) + ", steps " + std::to_string(update.steps) + ", expected 1 and 0");
    });
    settle(3, Outcome::accepted);
    give(task_of(TaskKind::train, 2, first_weights_), 4);
    checks_.must("6", "trains on a model that it holds without fetching it", [&] { expect_update(4); });
    settle(4, Outcome::late);
    checks_.check("7", "sends nothing of an update that got a receipt in place of a grant", [&] { expect_silence("after the receipt"); });
  }

  void damaged_blob() {
    give(task_of(TaskKind::train, 3, other_weights_), 5);
    checks_.must("7", "fetches another model", [&] { expect(expect_fetch() == 0, "not from 0 on"); });
    RawBytes damaged(other_weights_.span().begin(), other_weights_.span().end());
    damaged[damaged.size() / 2] ^= std::byte{1};
    send_model(SharedBuffer::copy_of(damaged), 0, damaged.size());
    checks_.must("7", "fetches a blob again from 0 when its hash is wrong", [&] { expect(expect_fetch() == 0, "it keeps a part of the wrong one"); });
    send_model(other_weights_, 0, other_weights_.size());
    checks_.must("6", "goes on with the right one", [&] { expect_update(5); });
    settle(5, Outcome::late);
  }

  void endings() {
    checks_.check("8", "closes the connection for a frame that is none", [&] {
      RawBytes bytes = frame_bytes(encode_grant(1, 0));
      bytes[5] = std::byte{9};
      probe_->write(bytes, options_.limit);
      expect_end();
    });
    come_back("4", "comes back after it closed the connection");
    checks_.check("8", "closes the connection for a frame that only clients send", [&] {
      probe_->write(encode(Heartbeat{}, 1), options_.limit);
      expect_end();
    });
    come_back("4", "comes back after that");
    returns_later("a server's goodbye", encode(Goodbye{"tested", kRetry_s, false}));
    welcome();
    returns_later("a refusal (busy)", encode(Refused{Refusal::busy, "tested", kRetry_s}));
    welcome();
    checks_.check("4", "closes when the run is finished", [&] {
      probe_->write(encode(Goodbye{"tested", 0, true}), options_.limit);
      expect_end();
    });
  }

  void returns_later(const std::string& what, const Frame& last) {
    Clock::time_point said;
    checks_.must("4", "closes after " + what, [&] {
      probe_->write(last, options_.limit);
      said = Clock::now();
      expect_end();
    });
    checks_.must("4", "comes back, but not before the " + std::to_string(kRetry_s) + " s that it was asked to wait", [&] {
      receive();
      const auto away = std::chrono::duration_cast<Milliseconds>(Clock::now() - said);
      expect(away >= std::chrono::seconds(kRetry_s), "it came after " + std::to_string(away.count()) + " ms");
    });
  }

  const ConformanceOptions& options_;
  Checks& checks_;
  TlsContext context_;
  ProbeListener listener_;
  std::optional<Probe> probe_;
  Hello hello_;
  SharedBuffer plan_;
  std::string plan_sha256_;
  std::unique_ptr<Model> model_;
  SharedBuffer first_weights_;
  SharedBuffer other_weights_;
  Task task_;
  std::uint64_t fetch_request_ = 0;
  BlobReference reference_;
  RawBytes update_;
  Heartbeat last_beat_;
  int beats_ = 0;
};

}  // namespace

void test_client(const ConformanceOptions& options, Checks& checks) { ClientTest(options, checks).run(); }

}  // namespace fl::cli
