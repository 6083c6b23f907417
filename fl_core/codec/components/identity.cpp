#include <bit>
#include <cstdint>
#include <cstring>

#include "fl_core/base/error.h"
#include "fl_core/codec/codec.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "floats travel little-endian and are copied as they are");

/// The floats as they are: little-endian IEEE binary32, nothing else.
class Identity : public Codec {
 public:
  explicit Identity(const NoOptions&) {}

  Bytes encode(std::span<const float> values, Rng&) const override {
    Bytes bytes = Bytes::uninitialised(values.size_bytes());
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), values.size_bytes());
    return bytes;
  }

  void decode(std::span<const std::byte> bytes, std::span<float> out) const override {
    if (bytes.size() != out.size_bytes()) {
      throw ProtocolError("codec identity: got " + std::to_string(bytes.size()) + " bytes, expected " +
                          std::to_string(out.size_bytes()) + " for " + std::to_string(out.size()) + " floats");
    }
    if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  }

  std::span<const float> view(std::span<const std::byte> bytes, std::size_t count) const override {
    if (bytes.size() != count * sizeof(float) || reinterpret_cast<std::uintptr_t>(bytes.data()) % alignof(float) != 0) return {};
    return {reinterpret_cast<const float*>(bytes.data()), count};
  }

  std::size_t max_bytes(std::size_t count) const override { return count * sizeof(float); }
  double relative_error() const override { return 0; }
};

FL_REGISTER(codecs(), "identity", Identity, NoOptions, "32-bit floats as they are, 4 bytes a parameter");

}  // namespace
}  // namespace fl
