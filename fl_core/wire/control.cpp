#include "fl_core/wire/control.h"

#include "fl_core/base/error.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

constexpr std::size_t kHashDigits = 64;
constexpr std::size_t kRunDigits = 32;

FrameHeader head_of(FrameType type, std::uint64_t request = 0, std::uint32_t round = 0) {
  FrameHeader head;
  head.type = type;
  head.request = request;
  head.round = round;
  return head;
}

Frame control(FrameType type, std::initializer_list<HeaderField> header, std::uint64_t request = 0, std::uint32_t round = 0) {
  return Frame(head_of(type, request, round), encode_header(header), SharedBuffer());
}

/// Frames that are neither question nor answer.
bool is_alone(FrameType type) {
  return type == FrameType::hello || type == FrameType::welcome || type == FrameType::refused || type == FrameType::goodbye;
}

/// The header of a frame of this type; only `welcome` and `chunk` have a body, only `receipt` a round.
HeaderReader open(const FrameHeader& head, std::span<const std::byte> header, FrameType type, const char* what) {
  if (head.type != type) {
    throw ProtocolError(std::string("expected ") + what + ", got " + frame_type_name(static_cast<std::uint8_t>(head.type)));
  }
  HeaderReader reader(header, what);
  const bool has_body = type == FrameType::welcome || type == FrameType::chunk;
  if (head.body_bytes != 0 && !has_body) reader.fail("it has a body");
  if (head.round != 0 && type != FrameType::receipt) reader.fail("it has a round");
  if (head.request != 0 && is_alone(type)) reader.fail("it has a request number");
  return reader;
}

HeaderReader open(const Frame& frame, FrameType type, const char* what) { return open(frame.head, frame.header.span(), type, what); }

}  // namespace

Frame encode(const Hello& hello) {
  return control(FrameType::hello, {{"protocol", hello.protocol},
                                    {"software", cleaned_text(hello.software, limits::kNameBytes)},
                                    {"examples", hello.examples},
                                    {"input", hello.input},
                                    {"classes", hello.classes},
                                    {"threads", hello.threads},
                                    {"plan", hello.plan_sha256},
                                    {"ready", hello.ready ? 1 : 0}});
}

Hello parse_hello(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::hello, "hello");
  Hello hello;
  header.integer("protocol", hello.protocol);
  hello.software = header.text("software", limits::kNameBytes);
  header.integer<std::uint64_t>("examples", hello.examples, 0, static_cast<std::uint64_t>(limits::kClientExamples));
  hello.input = header.text("input", limits::kNameBytes);
  header.integer("classes", hello.classes);
  header.integer("threads", hello.threads);
  hello.plan_sha256 = header.hex("plan", kHashDigits, true);
  hello.ready = header.flag("ready");
  header.finish();
  return hello;
}

Frame encode(const Welcome& welcome) {
  SharedBuffer header = encode_header({{"protocol", welcome.protocol}, {"run", welcome.run}, {"client", welcome.client},
                                       {"heartbeat_s", welcome.heartbeat_s}, {"plan", welcome.plan_sha256}});
  return Frame(head_of(FrameType::welcome), std::move(header), welcome.plan);
}

Welcome parse_welcome(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::welcome, "welcome");
  Welcome welcome;
  header.integer("protocol", welcome.protocol);
  welcome.run = header.hex("run", kRunDigits);
  header.integer("client", welcome.client);
  header.integer<std::uint32_t>("heartbeat_s", welcome.heartbeat_s, 1, 3600);
  welcome.plan_sha256 = header.hex("plan", kHashDigits);
  welcome.plan = frame.body;
  header.finish();
  return welcome;
}

Frame encode(const Refused& refused) {
  return control(FrameType::refused, {{"code", static_cast<unsigned>(refused.code)},
                                      {"reason", cleaned_text(refused.reason, limits::kReasonBytes)},
                                      {"retry_s", refused.retry_s}});
}

Refused parse_refused(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::refused, "refusal");
  Refused refused;
  std::uint8_t code = 0;
  header.integer<std::uint8_t>("code", code, 0, static_cast<std::uint8_t>(Refusal::flood));
  refused.code = static_cast<Refusal>(code);
  refused.reason = header.text("reason", limits::kReasonBytes);
  header.integer<std::uint32_t>("retry_s", refused.retry_s, 0, limits::kRetrySeconds);
  header.finish();
  return refused;
}

Frame encode(const Heartbeat& heartbeat, std::uint64_t request) {
  return control(FrameType::heartbeat, {{"ready", heartbeat.ready ? 1 : 0}, {"training_round", heartbeat.training_round}}, request);
}

Heartbeat parse_heartbeat(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::heartbeat, "heartbeat");
  Heartbeat heartbeat;
  heartbeat.ready = header.flag("ready");
  header.integer("training_round", heartbeat.training_round);
  header.finish();
  return heartbeat;
}

Frame encode_heartbeat_reply(std::uint64_t request) { return control(FrameType::heartbeat_reply, {}, request); }

void parse_heartbeat_reply(const Frame& frame) { open(frame, FrameType::heartbeat_reply, "heartbeat reply").finish(); }

Frame encode(const Fetch& fetch, std::uint64_t request) {
  return control(FrameType::fetch, {{"sha256", fetch.blob.hex()}, {"size", fetch.blob.size_bytes}, {"offset", fetch.offset}}, request);
}

Fetch parse_fetch(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::fetch, "fetch");
  Fetch fetch;
  const std::string digits = header.hex("sha256", kHashDigits);
  for (std::size_t i = 0; i < fetch.blob.sha256.size(); ++i) {
    fetch.blob.sha256[i] = static_cast<std::byte>(std::stoul(digits.substr(2 * i, 2), nullptr, 16));
  }
  header.integer<std::uint64_t>("size", fetch.blob.size_bytes, 1, limits::kBlobBytes);
  header.integer<std::uint64_t>("offset", fetch.offset, 0, fetch.blob.size_bytes - 1);
  header.finish();
  return fetch;
}

Frame encode_chunk(std::uint64_t request, std::uint64_t offset, SharedBuffer piece) {
  return Frame(head_of(FrameType::chunk, request), encode_header({{"offset", offset}}), std::move(piece));
}

std::uint64_t parse_chunk(const FrameHeader& head, std::span<const std::byte> bytes) {
  HeaderReader header = open(head, bytes, FrameType::chunk, "chunk");
  std::uint64_t offset = 0;
  header.integer<std::uint64_t>("offset", offset, 0, limits::kBlobBytes - 1);
  header.finish();
  if (head.body_bytes == 0) header.fail("it is empty");
  return offset;
}

Frame encode_grant(std::uint64_t request, std::uint64_t offset) {
  return control(FrameType::grant, {{"offset", offset}}, request);
}

std::uint64_t parse_grant(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::grant, "grant");
  std::uint64_t offset = 0;
  header.integer<std::uint64_t>("offset", offset, 0, limits::kBlobBytes);
  header.finish();
  return offset;
}

Frame encode(const Receipt& receipt, std::uint64_t request, std::uint32_t round) {
  return control(FrameType::receipt, {{"outcome", static_cast<unsigned>(receipt.outcome)}}, request, round);
}

Receipt parse_receipt(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::receipt, "receipt");
  std::uint8_t outcome = 0;
  header.integer<std::uint8_t>("outcome", outcome, 0, kOutcomes - 1);
  header.finish();
  return {static_cast<Outcome>(outcome)};
}

Frame encode(const Goodbye& goodbye) {
  return control(FrameType::goodbye, {{"reason", cleaned_text(goodbye.reason, limits::kReasonBytes)},
                                      {"retry_s", goodbye.retry_s},
                                      {"finished", goodbye.finished ? 1 : 0}});
}

Goodbye parse_goodbye(const Frame& frame) {
  HeaderReader header = open(frame, FrameType::goodbye, "goodbye");
  Goodbye goodbye;
  goodbye.reason = header.text("reason", limits::kReasonBytes);
  header.integer<std::uint32_t>("retry_s", goodbye.retry_s, 0, limits::kRetrySeconds);
  goodbye.finished = header.flag("finished");
  header.finish();
  return goodbye;
}

}  // namespace fl
