#include "simulations/cli/conformance_offences.h"

#include <utility>

#include "fl_core/net/probe.h"
#include "fl_core/wire/control.h"

namespace fl::cli {
namespace {

using RawBytes = std::vector<std::byte>;

Frame raw_frame(FrameType type, const RawBytes& header, std::uint64_t request) {
  FrameHeader head;
  head.type = type;
  head.request = request;
  return Frame(head, SharedBuffer::copy_of(header), SharedBuffer());
}

RawBytes cbor(std::initializer_list<unsigned> bytes, const char* text = "", std::initializer_list<unsigned> rest = {}) {
  RawBytes all;
  for (const unsigned byte : bytes) all.push_back(static_cast<std::byte>(byte));
  for (const char* c = text; *c != '\0'; ++c) all.push_back(static_cast<std::byte>(*c));
  for (const unsigned byte : rest) all.push_back(static_cast<std::byte>(byte));
  return all;
}

/// The fixed part of a frame with some bytes replaced.
RawBytes patched(FrameType type, std::initializer_list<std::pair<std::size_t, unsigned>> patches, std::uint32_t body_bytes = 0) {
  FrameHeader head;
  head.type = type;
  head.header_bytes = 1;
  head.body_bytes = body_bytes;
  const auto fixed = encode_frame_header(head);
  RawBytes bytes(fixed.begin(), fixed.end());
  for (const auto& [at, value] : patches) bytes[at] = static_cast<std::byte>(value);
  return bytes;
}

std::vector<Offence> frame_offences() {
  using enum FrameType;
  return {
      {"other magic bytes", patched(heartbeat, {{0, 'G'}}), "2"},
      {"frame version 2", patched(heartbeat, {{4, 2}}), "2"},
      {"frame type 0", patched(heartbeat, {{5, 0}}), "2"},
      {"frame type 9", patched(heartbeat, {{5, 9}}), "2"},
      {"frame type 255", patched(heartbeat, {{5, 255}}), "2"},
      {"an unknown flag", patched(update, {{6, 2}}), "2"},
      {"a blob flag where it does not belong", patched(fetch, {{6, 1}}, 40), "2"},
      {"a blob reference of 41 bytes", patched(update, {{6, 1}}, 41), "2"},
      {"a reserved field that is not 0", patched(heartbeat, {{20, 1}}), "2"},
      {"a header of 65537 bytes", patched(heartbeat, {{12, 1}, {13, 0}, {14, 1}}), "2"},
      {"a header of 4294967295 bytes", patched(heartbeat, {{12, 255}, {13, 255}, {14, 255}, {15, 255}}), "2"},
      {"a heartbeat with a body", patched(heartbeat, {}, 1), "2"},
      {"an update with a body of 65537 bytes", patched(update, {}, 65'537), "2"},
      {"a secure_answer with a body of 65537 bytes", patched(secure_answer, {}, 65'537), "2"},
      {"a chunk of 1048577 bytes", patched(chunk, {}, 1'048'577), "2"},
      {"a chunk of 4294967295 bytes", patched(chunk, {}, 0xffffffff), "2"},
  };
}

std::vector<Offence> header_offences() {
  const auto heartbeat = [](const std::string& what, const RawBytes& header) {
    return Offence{what, frame_bytes(raw_frame(FrameType::heartbeat, header, 1)), "3"};
  };
  // a2 65 "ready" 01 6e "training_round" 00, and what can be wrong with it.
  const RawBytes round = cbor({0x6e}, "training_round", {0x00});
  const auto with = [&](RawBytes front, const RawBytes& back) {
    front.insert(front.end(), back.begin(), back.end());
    return front;
  };
  return {
      heartbeat("a header that is no CBOR map", cbor({0x80})),
      heartbeat("an empty header", {}),
      heartbeat("a header that ends too early", cbor({0xa2, 0x65}, "ready", {0x01})),
      heartbeat("bytes after the header", with(cbor({0xa2, 0x65}, "ready", {0x01}), with(round, cbor({0x00})))),
      heartbeat("a missing key", cbor({0xa1, 0x65}, "ready", {0x01})),
      heartbeat("a key too many", with(cbor({0xa3, 0x61}, "x", {0x00, 0x65, 'r', 'e', 'a', 'd', 'y', 0x01}), round)),
      heartbeat("a key twice", with(cbor({0xa3, 0x65}, "ready", {0x01, 0x65, 'r', 'e', 'a', 'd', 'y', 0x01}), round)),
      heartbeat("an integer in a longer form", with(cbor({0xa2, 0x65}, "ready", {0x18, 0x01}), round)),
      heartbeat("a map of indefinite length", with(cbor({0xbf, 0x65}, "ready", {0x01}), with(round, cbor({0xff})))),
      heartbeat("true in place of 1", with(cbor({0xa2, 0x65}, "ready", {0xf5}), round)),
      heartbeat("a flag of 2", with(cbor({0xa2, 0x65}, "ready", {0x02}), round)),
      heartbeat("text in place of an integer", with(cbor({0xa2, 0x65}, "ready", {0x61, '1'}), round)),
      {"a chunk without bytes", frame_bytes(encode_chunk(1, 0, SharedBuffer())), "7"},
      {"a fetch beyond the end of its blob", frame_bytes(encode(Fetch{strange_blob(), 1000}, 1)), "7"},
  };
}

}  // namespace

BlobReference strange_blob() {
  BlobReference blob;
  blob.sha256.fill(std::byte{0x5a});
  blob.size_bytes = 1000;
  return blob;
}

std::vector<Offence> offences_of_a_client() {
  std::vector<Offence> all = frame_offences();
  for (Offence& one : header_offences()) all.push_back(std::move(one));
  return all;
}

}  // namespace fl::cli
