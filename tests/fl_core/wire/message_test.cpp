#include "fl_core/wire/message.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/params/exact_sum.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::HasSubstr;

Layout small_layout() { return Layout({{"w", {3}}, {"b", {1}}}); }

Task small_task() {
  Task task;
  task.kind = TaskKind::evaluate;
  task.round = 300;
  task.model_version = 299;
  task.fingerprint = small_layout().fingerprint();
  task.weights = SharedBuffer(Bytes(16));
  return task;
}

UpdateHeader full_update() {
  UpdateHeader update;
  update.round = std::numeric_limits<std::uint32_t>::max();
  update.model_version = 23;
  update.fingerprint = std::numeric_limits<std::uint64_t>::max();
  update.weight = ExactSum::kMaxWeight;
  update.steps = 256;
  update.metrics = {600, 599, std::numeric_limits<std::int64_t>::max()};
  update.codec = "fp16";
  return update;
}

/// A message with a header of our choice around an otherwise good one.
Message with_header(MessageType type, std::uint32_t round, const std::vector<std::uint8_t>& header) {
  return Message(type, round, SharedBuffer::copy_of(std::as_bytes(std::span(header))), SharedBuffer());
}

json good_update_header() {
  const SharedBuffer header = encode_update(full_update(), SharedBuffer()).header();
  return json::from_cbor(reinterpret_cast<const char*>(header.span().data()),
                         reinterpret_cast<const char*>(header.span().data()) + header.size());
}

std::string update_error(const json& header) {
  return error_of([&] { parse_update_header(with_header(MessageType::update, full_update().round, json::to_cbor(header))); });
}

std::string update_error_with(const char* key, const json& value) {
  json header = good_update_header();
  header[key] = value;
  return update_error(header);
}

TEST(TaskMessage, ComesBackAndSharesItsBody) {
  const Task sent = small_task();
  const Message message = encode_task(sent);
  const Task got = parse_task(message, small_layout());
  EXPECT_EQ(got.kind, sent.kind);
  EXPECT_EQ(got.round, sent.round);
  EXPECT_EQ(got.model_version, sent.model_version);
  EXPECT_EQ(got.fingerprint, sent.fingerprint);
  EXPECT_EQ(got.weights.span().data(), sent.weights.span().data());
  EXPECT_EQ(message.size_bytes(), message.header().size() + 16);
}

TEST(TaskMessage, IsRefusedForAnotherModelOrLength) {
  Task task = small_task();
  task.fingerprint ^= 1;
  EXPECT_THAT(error_of([&] { parse_task(encode_task(task), small_layout()); }), HasSubstr("same 'model' section"));
  for (const std::size_t size : {0U, 15U, 17U, 20U}) {
    task = small_task();
    task.weights = SharedBuffer(Bytes(size));
    EXPECT_THROW(parse_task(encode_task(task), small_layout()), ProtocolError) << size;
  }
}

TEST(TaskMessage, IsRefusedFromAMessageOfAnotherType) {
  const Message task = encode_task(small_task());
  const Message update(MessageType::update, task.round(), task.header(), task.body());
  EXPECT_THROW(parse_task(update, small_layout()), ProtocolError);
}

TEST(UpdateMessage, ComesBack) {
  const UpdateHeader sent = full_update();
  const UpdateHeader got = parse_update_header(encode_update(sent, SharedBuffer(Bytes(5))));
  EXPECT_EQ(got.round, sent.round);
  EXPECT_EQ(got.model_version, sent.model_version);
  EXPECT_EQ(got.fingerprint, sent.fingerprint);
  EXPECT_EQ(got.weight, sent.weight);
  EXPECT_EQ(got.steps, sent.steps);
  EXPECT_EQ(got.metrics.examples, sent.metrics.examples);
  EXPECT_EQ(got.metrics.correct, sent.metrics.correct);
  EXPECT_EQ(got.metrics.loss_units, sent.metrics.loss_units);
  EXPECT_EQ(got.codec, sent.codec);
}

TEST(UpdateMessage, IsRefusedOutOfRange) {
  ASSERT_EQ(update_error(good_update_header()), "");
  EXPECT_THAT(update_error_with("weight", 0), HasSubstr("'weight' must be an integer from 1 to 65535"));
  EXPECT_THAT(update_error_with("weight", 65536), HasSubstr("'weight'"));
  EXPECT_THAT(update_error_with("weight", 1.0), HasSubstr("neither an integer nor text"));
  EXPECT_THAT(update_error_with("weight", "1"), HasSubstr("'weight'"));
  EXPECT_THAT(update_error_with("steps", -1), HasSubstr("'steps'"));
  EXPECT_THAT(update_error_with("model_version", 4294967296), HasSubstr("'model_version'"));
  EXPECT_THAT(update_error_with("examples", -1), HasSubstr("'examples'"));
  EXPECT_THAT(update_error_with("examples", limits::kClientExamples + 1), HasSubstr("'examples'"));
  EXPECT_THAT(update_error_with("correct", 601), HasSubstr("'correct' must be an integer from 0 to 600"));
  EXPECT_THAT(update_error_with("loss_units", 1ULL << 63), HasSubstr("'loss_units'"));
  EXPECT_THAT(update_error_with("loss_units", -1), HasSubstr("'loss_units'"));
  EXPECT_THAT(update_error_with("fingerprint", -1), HasSubstr("'fingerprint'"));
  EXPECT_THAT(update_error_with("codec", std::string(257, 'a')), HasSubstr("'codec'"));
  EXPECT_THAT(update_error_with("round", 1), HasSubstr("round 1 in a message of round 4294967295"));
}

TEST(UpdateMessage, HasExactlyItsKeys) {
  EXPECT_THAT(update_error_with("extra", 1), HasSubstr("nobody expects"));
  const json good = good_update_header();
  for (const auto& [key, value] : good.items()) {
    json header = good;
    header.erase(key);
    EXPECT_THAT(update_error(header), HasSubstr("no '" + key + "'"));
  }
}

SecureHeader some_secure(std::uint32_t step) {
  SecureHeader header;
  header.round = 70'000;
  header.model_version = 69'999;
  header.fingerprint = std::numeric_limits<std::uint64_t>::max();
  header.step = step;
  return header;
}

/// What is wrong with {"round": 7, "model_version": 6, "fingerprint": 5, "step": 3} after a change.
std::string secure_error(MessageType type, const std::function<void(json&)>& change) {
  json header = {{"round", 7}, {"model_version", 6}, {"fingerprint", 5}, {"step", 3}};
  change(header);
  return error_of([&] { parse_secure_header(with_header(type, 7, json::to_cbor(header))); });
}

TEST(SecureMessage, ComesBackInEveryStepOfItsDirection) {
  for (const MessageType type : {MessageType::secure_step, MessageType::secure_answer}) {
    for (std::uint32_t step = type == MessageType::secure_step ? 2 : 1; step <= kSecureSteps; ++step) {
      const SecureHeader sent = some_secure(step);
      const SharedBuffer body(Bytes(9));
      const Message message = encode_secure(type, sent, body);
      EXPECT_EQ(message.body().span().data(), body.span().data()) << "shared, not copied";
      const SecureHeader got = parse_secure_header(message);
      EXPECT_EQ(got.round, sent.round);
      EXPECT_EQ(got.model_version, sent.model_version);
      EXPECT_EQ(got.fingerprint, sent.fingerprint);
      EXPECT_EQ(got.step, step);
    }
  }
}

TEST(SecureMessage, HasNoOtherSteps) {
  const auto error = [](MessageType type, const json& step) {
    return secure_error(type, [&](json& header) { header["step"] = step; });
  };
  // The first step's question is `train`.
  EXPECT_THAT(error(MessageType::secure_step, 1), HasSubstr("'step' must be an integer from 2 to 5"));
  EXPECT_EQ(error(MessageType::secure_answer, 1), "");
  for (const MessageType type : {MessageType::secure_step, MessageType::secure_answer}) {
    for (const json& step : {json(0), json(6), json(-1), json(1ULL << 32U), json("3")}) EXPECT_THAT(error(type, step), HasSubstr("'step'")) << step;
  }
}

TEST(SecureMessage, HasExactlyItsKeys) {
  for (const MessageType type : {MessageType::secure_step, MessageType::secure_answer}) {
    EXPECT_EQ(secure_error(type, [](json&) {}), "");
    for (const std::string key : {"round", "model_version", "fingerprint", "step"}) {
      EXPECT_THAT(secure_error(type, [&](json& header) { header.erase(key); }), HasSubstr("no '" + key + "'"));
      EXPECT_THAT(secure_error(type, [&](json& header) { header[key] = -1; }), HasSubstr("'" + key + "'"));
    }
    EXPECT_THAT(secure_error(type, [](json& header) { header["weight"] = 1; }), HasSubstr("nobody expects"));
    EXPECT_THAT(secure_error(type, [](json& header) { header["round"] = 8; }), HasSubstr("round 8 in a message of round 7"));
    EXPECT_THAT(secure_error(type, [](json& header) { header["model_version"] = 1ULL << 32U; }), HasSubstr("'model_version'"));
  }
}

TEST(SecureMessage, IsRefusedFromAMessageOfAnotherType) {
  EXPECT_THAT(error_of([] { parse_secure_header(encode_failure(1, "no")); }), HasSubstr("message type 3"));
  EXPECT_THROW(parse_secure_header(encode_update(full_update(), SharedBuffer())), ProtocolError);
  const Message answer = encode_secure(MessageType::secure_answer, some_secure(2), SharedBuffer());
  EXPECT_THROW(parse_update_header(answer), ProtocolError);
  EXPECT_THROW(parse_task(answer, small_layout()), ProtocolError);
}

TEST(MessageHeader, IsOneFlatMapInShortestForm) {
  const auto failure = [](std::vector<std::uint8_t> header) {
    return error_of([&] { parse_failure(with_header(MessageType::failed, 5, header)); });
  };
  // {"round": 5, "reason": "x"} by hand: a2 65 "round" 05 66 "reason" 61 'x' (RFC 8949 §3).
  const std::vector<std::uint8_t> good = {0xa2, 0x65, 'r', 'o', 'u', 'n', 'd', 0x05, 0x66, 'r', 'e', 'a', 's', 'o', 'n', 0x61, 'x'};
  EXPECT_EQ(failure(good), "");
  auto bad = good;
  bad.push_back(0);
  EXPECT_THAT(failure(bad), HasSubstr("bytes after the header"));
  bad = good;
  bad.pop_back();
  EXPECT_THAT(failure(bad), HasSubstr("ends too early"));
  bad = good;
  bad[7] = 0x18;  // "the integer is in the next byte": 0x66 = 102, and the key after it is cut
  EXPECT_NE(failure(bad), "");
  bad = good;
  bad.insert(bad.begin() + 7, 0x18);  // 5 in two bytes
  EXPECT_THAT(failure(bad), HasSubstr("shortest form"));
  bad = good;
  bad[0] = 0xbf;  // a map of indefinite length
  EXPECT_THAT(failure(bad), HasSubstr("definite lengths"));
  bad = good;
  bad[0] = 0x82;  // an array
  EXPECT_THAT(failure(bad), HasSubstr("not a CBOR map"));
  bad = good;
  bad.insert(bad.end(), {0x65, 'r', 'o', 'u', 'n', 'd', 0x05});
  bad[0] = 0xa3;
  EXPECT_THAT(failure(bad), HasSubstr("twice"));
  EXPECT_THAT(failure({0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), HasSubstr("ends too early"));  // 2^64 - 1 entries
  EXPECT_THAT(failure({0xa1, 0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}), HasSubstr("ends too early"));  // 2^64 - 1 bytes
  EXPECT_NE(failure({}), "");
}

TEST(MessageHeader, CannotExhaustTheStack) {
  // A string of chunks of strings of chunks …: one level of recursion a byte in a naive reader.
  std::vector<std::uint8_t> header(limits::kHeaderBytes, 0x7f);
  header[0] = 0xa1;
  EXPECT_THROW(parse_failure(with_header(MessageType::failed, 0, header)), ProtocolError);
  std::fill(header.begin(), header.end(), std::uint8_t{0x81});
  EXPECT_THROW(parse_failure(with_header(MessageType::failed, 0, header)), ProtocolError);
}

TEST(MessageHeader, IsRefusedAboveItsLimitAndForAnotherType) {
  const std::vector<std::uint8_t> header(limits::kHeaderBytes + 1, 0);
  EXPECT_THAT(error_of([&] { parse_failure(with_header(MessageType::failed, 0, header)); }), HasSubstr("the limit is 65536"));
  EXPECT_THAT(error_of([&] { parse_update_header(encode_failure(1, "no")); }), HasSubstr("message type 3"));
}

TEST(FailureMessage, CarriesItsReason) { EXPECT_EQ(parse_failure(encode_failure(4, "no data für mich")), "no data für mich"); }

TEST(FailureMessage, CutsItsReasonBetweenCharacters) {
  // 'ü' has two bytes; after 255 bytes of 'x' only one is left, so it is dropped whole.
  EXPECT_EQ(parse_failure(encode_failure(4, std::string(255, 'x') + "ü")), std::string(255, 'x'));
  EXPECT_EQ(parse_failure(encode_failure(4, std::string(254, 'x') + "ü")), std::string(254, 'x') + "ü");
}

TEST(FailureMessage, CannotSteerTheReadersTerminal) {
  EXPECT_EQ(parse_failure(encode_failure(4, "a\nb\x1b[2J\x7f\xff")), "a b [2J??");
  const auto reason = [](const std::string& text) {
    return error_of([&] {
      parse_failure(with_header(MessageType::failed, 4, json::to_cbor(json{{"round", 4}, {"reason", text}})));
    });
  };
  EXPECT_EQ(reason("plain"), "");
  for (const std::string text : {"\x1b[2J", "a\nb", "\x7f", "\xc2\x9b" "2J", "\xff", "\xc0\x80", "\xed\xa0\x80", "\xe2\x80\xa8"}) {
    EXPECT_THAT(reason(text), HasSubstr("control characters"));
  }
  EXPECT_THAT(reason(std::string(257, 'x')), HasSubstr("at most 256 bytes"));
}

TEST(FailureMessage, HasNoBody) {
  const Message good = encode_failure(4, "no");
  EXPECT_THROW(parse_failure(Message(MessageType::failed, 4, good.header(), SharedBuffer(Bytes(1)))), ProtocolError);
}

}  // namespace
}  // namespace fl
