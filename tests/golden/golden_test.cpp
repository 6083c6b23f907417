// The bytes of every frame, of the plan and of the codecs, as files that never change: another implementation, and every later
// version of this one, must write and read exactly these. FORMAT.md is the grammar. After an intended change of the format,
// `FL_WRITE_GOLDEN=1 golden_tests` writes the files anew.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>

#include "fl_core/base/rng.h"
#include "fl_core/base/sha256.h"
#include "fl_core/codec/codec.h"
#include "fl_core/config/plan.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/frame.h"

namespace fl {
namespace {

namespace fs = std::filesystem;
using ByteString = std::vector<std::byte>;

const fs::path kFolder = fs::path(FL_SOURCE_DIR) / "tests" / "golden";
bool writing() { return std::getenv("FL_WRITE_GOLDEN") != nullptr; }

// --- files: hexadecimal digits, 16 bytes a line --------------------------------------------------------------------------------

std::string to_hex(std::span<const std::byte> bytes) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    text += kDigits[std::to_integer<unsigned>(bytes[i]) >> 4U];
    text += kDigits[std::to_integer<unsigned>(bytes[i]) & 15U];
    text += i % 16 == 15 || i + 1 == bytes.size() ? '\n' : ' ';
  }
  return text;
}

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file) << path << " is missing; FL_WRITE_GOLDEN=1 writes it";
  return {std::istreambuf_iterator<char>(file), {}};
}

ByteString read_hex(const fs::path& path) {
  std::string digits = read_text(path);
  std::erase_if(digits, [](char c) { return c == ' ' || c == '\n'; });
  ByteString bytes;
  for (std::size_t i = 0; i + 1 < digits.size(); i += 2) bytes.push_back(static_cast<std::byte>(std::stoul(digits.substr(i, 2), nullptr, 16)));
  return bytes;
}

/// The file's content must be `text`; when writing, it becomes that.
void expect_file(const std::string& name, const std::string& text) {
  if (writing()) std::ofstream(kFolder / name, std::ios::binary) << text;
  EXPECT_EQ(read_text(kFolder / name), text) << name;
}

// --- the values that the files hold --------------------------------------------------------------------------------------------

template <class Value>
SharedBuffer bytes_of_values(const std::vector<Value>& values) {
  return SharedBuffer::copy_of(std::as_bytes(std::span(values)));
}
SharedBuffer text_bytes(const std::string& text) { return SharedBuffer::copy_of(std::as_bytes(std::span(text))); }

/// A blob of the bytes 0, 1, 2, …, modulo 251.
ByteString blob_bytes(std::size_t size) {
  ByteString bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i % 251);
  return bytes;
}

/// Above 64 KiB, so that a frame refers to it.
constexpr std::size_t kLarge = 100'000;

ClientPlan some_plan() {
  ClientPlan plan;
  plan.model = {{"name", "toy_softmax"}};
  plan.trainer = {{"name", "sgd"}, {"batch_size", 10}, {"learning_rate", 0.1}};
  plan.codec = {{"name", "fp16"}};
  plan.seed = 7;
  plan.client_holdout = 0.25;
  plan.shape = {{1, 28, 28}, 10, 0};
  return plan;
}

Hello some_hello() {
  Hello hello;
  hello.software = "tributary 0.1.0";
  hello.examples = 600;
  hello.input = "1x28x28";
  hello.classes = 10;
  hello.threads = 4;
  hello.plan_sha256 = "";
  return hello;
}

Welcome some_welcome(bool with_plan) {
  Welcome welcome;
  welcome.run = "00112233445566778899aabbccddeeff";
  welcome.client = 300;
  welcome.heartbeat_s = 15;
  const SharedBuffer plan = text_bytes(plan_text(some_plan()));
  welcome.plan_sha256 = sha256_hex(plan.span());
  if (with_plan) welcome.plan = plan;
  return welcome;
}

Layout layout_of(std::size_t bytes) { return Layout({{"w", {static_cast<std::int64_t>(bytes / sizeof(float))}}}); }

Task some_task(TaskKind kind, SharedBuffer weights) {
  Task task;
  task.kind = kind;
  task.round = 3;
  task.model_version = 2;
  task.fingerprint = layout_of(weights.size()).fingerprint();
  task.weights = std::move(weights);
  return task;
}

SharedBuffer small_weights() { return bytes_of_values(std::vector<float>{1.0F, -0.5F, 0.0F, 65504.0F}); }

UpdateHeader some_update(bool evaluation) {
  UpdateHeader update;
  update.round = 3;
  update.model_version = 2;
  update.fingerprint = 0x0123456789abcdefULL;
  update.weight = evaluation ? 1 : 600;
  update.steps = evaluation ? 0 : 60;
  update.metrics = {600, 500, INT64_C(1) << 40};
  update.codec = "fp16";
  return update;
}

SecureHeader some_secure(std::uint32_t step) {
  SecureHeader secure;
  secure.round = 3;
  secure.model_version = 2;
  secure.fingerprint = 0x0123456789abcdefULL;
  secure.step = step;
  return secure;
}

// --- frames --------------------------------------------------------------------------------------------------------------------

ByteString bytes_of(const Frame& frame) {
  const auto head = encode_frame_header(frame.head);
  ByteString bytes(head.begin(), head.end());
  for (const auto part : {frame.header.span(), frame.body.span()}) bytes.insert(bytes.end(), part.begin(), part.end());
  return bytes;
}

Frame frame_from(std::span<const std::byte> bytes) {
  const FrameHeader head = parse_frame_header(bytes.first<kFrameHeaderBytes>());
  EXPECT_EQ(bytes.size(), kFrameHeaderBytes + head.header_bytes + head.body_bytes);
  return Frame(head, SharedBuffer::copy_of(bytes.subspan(kFrameHeaderBytes, head.header_bytes)),
               SharedBuffer::copy_of(bytes.subspan(kFrameHeaderBytes + head.header_bytes)));
}

/// One golden file: the frame, and how a reader gets a value out of it and writes it again.
struct Golden {
  std::string name;
  Frame frame;
  std::function<Frame(const Frame&)> again;
};

Message received(const Frame& frame) { return message_of(frame, frame.body); }

Frame task_again(const Frame& frame) {
  const Message message = received(frame);
  return frame_of(encode_task(parse_task(message, layout_of(message.body().size()))), frame.head.request);
}

Frame large_task_again(const Frame& frame) {
  const SharedBuffer blob = SharedBuffer::copy_of(blob_bytes(kLarge));
  EXPECT_EQ(parse_blob_reference(frame.body.span()), reference_to(blob.span()));
  return frame_of(encode_task(parse_task(message_of(frame, blob), layout_of(kLarge))), frame.head.request);
}

Frame update_again(const Frame& frame) {
  const Message message = received(frame);
  if (frame.head.flags == kFlagBlob) {
    return frame_of(encode_update(parse_update_header(message), SharedBuffer()), frame.head.request, parse_blob_reference(frame.body.span()));
  }
  return frame_of(encode_update(parse_update_header(message), message.body()), frame.head.request);
}

Frame secure_again(const Frame& frame) {
  const Message message = received(frame);
  const SecureHeader secure = parse_secure_header(message);
  if (frame.head.flags == kFlagBlob) {
    return frame_of(encode_secure(message.type(), secure, SharedBuffer()), frame.head.request, parse_blob_reference(frame.body.span()));
  }
  return frame_of(encode_secure(message.type(), secure, message.body()), frame.head.request);
}

std::vector<Golden> message_frames() {
  const BlobReference blob = reference_to(blob_bytes(kLarge));
  const auto failed_again = [](const Frame& frame) {
    return frame_of(encode_failure(frame.head.round, parse_failure(received(frame))), frame.head.request);
  };
  // Halves of 1, -0.5, 0, 65504.
  const SharedBuffer halves = bytes_of_values(std::vector<std::uint16_t>{0x3c00, 0xb800, 0x0000, 0x7bff});
  const Task large = some_task(TaskKind::train, SharedBuffer::copy_of(blob_bytes(kLarge)));
  return {
      {"train", frame_of(encode_task(some_task(TaskKind::train, small_weights())), 41), task_again},
      {"train_blob", frame_of(encode_task(large), 42), large_task_again},
      {"evaluate", frame_of(encode_task(some_task(TaskKind::evaluate, small_weights())), 43), task_again},
      {"update", frame_of(encode_update(some_update(false), halves), 41), update_again},
      {"update_blob", frame_of(encode_update(some_update(false), SharedBuffer()), 42, blob), update_again},
      {"update_evaluation", frame_of(encode_update(some_update(true), SharedBuffer()), 43), update_again},
      {"secure_step", frame_of(encode_secure(MessageType::secure_step, some_secure(4), SharedBuffer::copy_of(blob_bytes(20))), 44), secure_again},
      {"secure_step_blob", frame_of(encode_secure(MessageType::secure_step, some_secure(2), SharedBuffer()), 45, blob), secure_again},
      {"secure_answer", frame_of(encode_secure(MessageType::secure_answer, some_secure(1), SharedBuffer::copy_of(blob_bytes(20))), 41), secure_again},
      {"secure_answer_blob", frame_of(encode_secure(MessageType::secure_answer, some_secure(3), SharedBuffer()), 46, blob), secure_again},
      {"failed", frame_of(encode_failure(3, "kein Speicher für 7 Bilder"), 41), failed_again},
  };
}

std::vector<Golden> link_frames() {
  const BlobReference blob = reference_to(blob_bytes(kLarge));
  const auto chunk_again = [](const Frame& frame) {
    return encode_chunk(frame.head.request, parse_chunk(frame.head, frame.header.span()), frame.body);
  };
  const auto reply_again = [](const Frame& frame) {
    parse_heartbeat_reply(frame);
    return encode_heartbeat_reply(frame.head.request);
  };
  const auto receipt_again = [](const Frame& frame) { return encode(parse_receipt(frame), frame.head.request, frame.head.round); };
  return {
      {"hello", encode(some_hello()), [](const Frame& frame) { return encode(parse_hello(frame)); }},
      {"welcome", encode(some_welcome(true)), [](const Frame& frame) { return encode(parse_welcome(frame)); }},
      {"welcome_plan_held", encode(some_welcome(false)), [](const Frame& frame) { return encode(parse_welcome(frame)); }},
      {"refused", encode(Refused{Refusal::fenced, "a newer connection of client-7", 60}), [](const Frame& frame) { return encode(parse_refused(frame)); }},
      {"heartbeat", encode(Heartbeat{true, 3}, 9), [](const Frame& frame) { return encode(parse_heartbeat(frame), frame.head.request); }},
      {"heartbeat_reply", encode_heartbeat_reply(9), reply_again},
      {"fetch", encode(Fetch{blob, 65'536}, 5), [](const Frame& frame) { return encode(parse_fetch(frame), frame.head.request); }},
      {"chunk", encode_chunk(5, 65'536, SharedBuffer::copy_of(blob_bytes(20))), chunk_again},
      {"grant", encode_grant(42, 1'000), [](const Frame& frame) { return encode_grant(frame.head.request, parse_grant(frame)); }},
      {"receipt", encode(Receipt{Outcome::late}, 42, 3), receipt_again},
      {"goodbye", encode(Goodbye{"the server stops", 5, false}), [](const Frame& frame) { return encode(parse_goodbye(frame)); }},
  };
}

std::vector<Golden> all_frames() {
  std::vector<Golden> all = message_frames();
  for (Golden& one : link_frames()) all.push_back(std::move(one));
  return all;
}

TEST(Golden, FramesAreWrittenAsTheyAlwaysWere) {
  for (const Golden& golden : all_frames()) expect_file(golden.name + ".hex", to_hex(bytes_of(golden.frame)));
}

TEST(Golden, FramesAreReadAndWrittenAgainToTheSameBytes) {
  for (const Golden& golden : all_frames()) {
    const ByteString bytes = read_hex(kFolder / (golden.name + ".hex"));
    ASSERT_GE(bytes.size(), kFrameHeaderBytes) << golden.name;
    const Frame frame = frame_from(bytes);
    EXPECT_EQ(to_hex(bytes_of(golden.again(frame))), to_hex(bytes)) << golden.name;
  }
}

TEST(Golden, EveryFrameTypeHasAFile) {
  std::vector<std::uint8_t> types;
  for (const Golden& golden : all_frames()) types.push_back(static_cast<std::uint8_t>(golden.frame.head.type));
  std::sort(types.begin(), types.end());
  types.erase(std::unique(types.begin(), types.end()), types.end());
  EXPECT_THAT(types, testing::ElementsAre(1, 2, 3, 4, 5, 6, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73));
}

TEST(Golden, EveryFileIsChecked) {
  std::vector<std::string> expected = {"codec_fp16.hex", "codec_identity.hex", "plan.json", "plan_secure.json"};
  for (const Golden& golden : all_frames()) expected.push_back(golden.name + ".hex");
  std::vector<std::string> found;
  for (const auto& entry : fs::directory_iterator(kFolder)) {
    const std::string extension = entry.path().extension();
    if (extension == ".hex" || extension == ".json") found.push_back(entry.path().filename());
  }
  EXPECT_THAT(found, testing::UnorderedElementsAreArray(expected));
}

TEST(Golden, HeartbeatIsTheExampleOfTheFormat) {
  // FORMAT.md, "An example": 4 bytes magic, version 1, type 67, flags, round 0, header 24 = 0x18 bytes, no body, reserved,
  // request 9; then {"ready": 1, "training_round": 3}: a map of 2 (a2), text of 5 (65), 1, text of 14 (6e), 3.
  const std::string expected =
      "54 52 42 54 01 43 00 00 00 00 00 00 18 00 00 00\n"
      "00 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00\n"
      "a2 65 72 65 61 64 79 01 6e 74 72 61 69 6e 69 6e\n"
      "67 5f 72 6f 75 6e 64 03\n";
  EXPECT_EQ(read_text(kFolder / "heartbeat.hex"), expected);
}

TEST(Golden, PlanIsOneLineOfJson) {
  const std::string text = plan_text(some_plan());
  expect_file("plan.json", text + "\n");
  // A reader fills in the trainer's defaults; from then on the text stays.
  const std::string full = plan_text(parse_plan(text));
  EXPECT_EQ(plan_text(parse_plan(full)), full);
  EXPECT_EQ(nlohmann::json::parse(full).at("shape"), nlohmann::json::parse(text).at("shape"));
  EXPECT_EQ(nlohmann::json::parse(full).at("trainer").at("learning_rate"), 0.1);
}

TEST(Golden, PlanWithSecureAggregationIsThePlanAndOneKeyMore) {
  ClientPlan plan = some_plan();
  plan.secure_aggregation.emplace();
  plan.secure_aggregation->max_cohort = 100;
  const std::string text = plan_text(plan);
  expect_file("plan_secure.json", text + "\n");
  nlohmann::json without = nlohmann::json::parse(text);
  EXPECT_EQ(without.erase("secure_aggregation"), 1U);
  EXPECT_EQ(without.dump(), plan_text(some_plan()));
  const std::string full = plan_text(parse_plan(text));
  EXPECT_EQ(nlohmann::json::parse(full).at("secure_aggregation"), nlohmann::json::parse(text).at("secure_aggregation"));
}

TEST(Golden, CodecsGiveTheBytesOfTheFormat) {
  // By IEEE 754: sign, exponent, fraction. 1 + 2^-11 lies half-way between two halves and goes to the even one, 1; 65520
  // and above become infinity; 2^-24 is the smallest half; -0 keeps its sign.
  const std::vector<float> values = {1.0F, -2.5F, 0x1.002p0F, 0x1.006p0F, 65520.0F, 0x1p-24F, -0.0F, 0.1F};
  Rng rng(1, Purpose::codec);
  for (const std::string name : {"identity", "fp16"}) {
    const auto codec = codecs().create({{"name", name}}, "codec");
    expect_file("codec_" + name + ".hex", to_hex(codec->encode(values, rng).span()));
  }
  // 3c00 = 1, c100 = -2.5 = -1.25 * 2, 3c00 (tie to even), 3c02 (tie to even: 1 + 3 * 2^-11), 7c00, 0001, 8000, 2e66.
  EXPECT_EQ(read_text(kFolder / "codec_fp16.hex"), "00 3c 00 c1 00 3c 02 3c 00 7c 01 00 00 80 66 2e\n");
}

}  // namespace
}  // namespace fl
