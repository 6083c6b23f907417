// The body of an update: every registered codec decodes any bytes. An input is the codec's number (1 byte), how many floats
// are expected (1 byte), and the encoded bytes.
#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/codec/codec.h"

namespace fl {
namespace {

std::vector<std::unique_ptr<Codec>> all_codecs() {
  std::vector<std::unique_ptr<Codec>> all;
  for (const std::string& name : codecs().names()) all.push_back(codecs().create({{"name", name}}, "codec"));
  return all;
}

void fuzz_one(std::span<const std::byte> input) {
  static const std::vector<std::unique_ptr<Codec>> all = all_codecs();
  if (input.size() < 2) return;
  const Codec& codec = *all[std::to_integer<std::size_t>(input[0]) % all.size()];
  std::vector<float> out(std::to_integer<std::size_t>(input[1]));
  const std::span<const std::byte> encoded = input.subspan(2);
  try {
    codec.decode(encoded, out);
    FL_CHECK(encoded.size() <= codec.max_bytes(out.size()), "a codec decoded more bytes than it ever writes");
  } catch (const ProtocolError&) {
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
