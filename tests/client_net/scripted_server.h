#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/net/probe.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/message.h"

namespace fl::test {

/// A server that does what the test says, frame by frame. Blocking; a client that does nothing ends a call after kHangs.
class ScriptedServer {
 public:
  static constexpr std::chrono::milliseconds kHangs{100'000};

  ScriptedServer(const TlsFiles& files, std::string plan) : context_(TlsRole::server, files), plan_(std::move(plan)) {}

  std::uint16_t port() const { return listener_.port(); }
  const std::string& plan() const { return plan_; }
  std::string run = std::string(32, 'a');
  ClientId client = 3;
  std::uint32_t heartbeat_s = 15;

  /// The next connection, until its hello. Connections that end before are let go.
  Hello accept() {
    for (;;) {
      line_.reset();
      try {
        line_ = std::make_unique<Probe>(Probe::accept(listener_.accept(kHangs), context_, kHangs));
        return parse_hello(line_->read_frame(kHangs));
      } catch (const ProbeEnded&) {
        continue;
      }
    }
  }
  /// The plan goes along unless the client holds it.
  void welcome(const Hello& hello) {
    Welcome welcome;
    welcome.run = run;
    welcome.client = client;
    welcome.heartbeat_s = heartbeat_s;
    const auto bytes = std::as_bytes(std::span(plan_));
    welcome.plan_sha256 = sha256_hex(bytes);
    if (hello.plan_sha256 != welcome.plan_sha256) welcome.plan = SharedBuffer::copy_of(bytes);
    send(encode(welcome));
  }
  void accept_and_welcome() { welcome(accept()); }

  void send(const Frame& frame) { line_->write(frame, kHangs); }
  void send_bytes(const std::string& bytes) { line_->write(std::as_bytes(std::span(bytes)), kHangs); }
  /// The next frame that is no heartbeat; those are answered and kept.
  Frame read() {
    for (;;) {
      Frame frame = line_->read_frame(kHangs);
      if (frame.head.type != FrameType::heartbeat) return frame;
      note_heartbeat(frame);
    }
  }
  Frame read(FrameType type) {
    Frame frame = read();
    if (frame.head.type != type) throw Error("the client sent " + frame_type_name(static_cast<std::uint8_t>(frame.head.type)));
    return frame;
  }
  Heartbeat read_heartbeat() {
    const Frame frame = line_->read_frame(kHangs);
    note_heartbeat(frame);
    return heartbeats.back();
  }
  /// Reads until the client has closed.
  void read_to_the_end() {
    try {
      for (;;) line_->read_frame(kHangs);
    } catch (const ProbeEnded&) {
    }
  }
  /// Ends the connection in an orderly way: what was sent arrives.
  void close() {
    line_->close();
    line_.reset();
  }
  void reset() {
    line_->reset();
    line_.reset();
  }

  std::vector<Heartbeat> heartbeats;

 private:
  void note_heartbeat(const Frame& frame) {
    heartbeats.push_back(parse_heartbeat(frame));
    line_->write(encode_heartbeat_reply(frame.head.request), kHangs);
  }

  TlsContext context_;
  std::string plan_;
  ProbeListener listener_{"127.0.0.1", 0};
  std::unique_ptr<Probe> line_;
};

}  // namespace fl::test
