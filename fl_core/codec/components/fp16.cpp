#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "fl_core/base/error.h"
#include "fl_core/codec/codec.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

static_assert(std::endian::native == std::endian::little, "halves travel little-endian and are copied as they are");

/// Little-endian IEEE binary16, rounded to nearest even. What exceeds 65504 becomes an infinity, which the receiver
/// rejects as not finite; what is below 2^-14 loses precision.
class Fp16 : public Codec {
 public:
  explicit Fp16(const NoOptions&) {}

  Bytes encode(std::span<const float> values, Rng&) const override {
    Bytes bytes(max_bytes(values.size()));
    for_each_block(values.size(), [&](std::size_t start, std::span<std::uint16_t> block) {
      kernels::to_fp16(values.subspan(start, block.size()), block);
      std::memcpy(bytes.data() + start * sizeof(std::uint16_t), block.data(), block.size_bytes());
    });
    return bytes;
  }

  void decode(std::span<const std::byte> bytes, std::span<float> out) const override {
    if (bytes.size() != max_bytes(out.size())) {
      throw ProtocolError("codec fp16: got " + std::to_string(bytes.size()) + " bytes, expected " +
                          std::to_string(max_bytes(out.size())) + " for " + std::to_string(out.size()) + " floats");
    }
    for_each_block(out.size(), [&](std::size_t start, std::span<std::uint16_t> block) {
      std::memcpy(block.data(), bytes.data() + start * sizeof(std::uint16_t), block.size_bytes());
      kernels::from_fp16(block, out.subspan(start, block.size()));
    });
  }

  std::size_t max_bytes(std::size_t count) const override { return count * sizeof(std::uint16_t); }
  /// Half a unit in the last of 11 significant bits.
  double relative_error() const override { return 0x1p-11; }

 private:
  /// Through a block that stays in the first-level cache, because a peer's bytes have no alignment.
  template <class Action>
  static void for_each_block(std::size_t count, Action action) {
    alignas(kAlignment) std::array<std::uint16_t, 4096> block;
    for (std::size_t start = 0; start < count; start += block.size()) {
      action(start, std::span(block).first(std::min(block.size(), count - start)));
    }
  }
};

FL_REGISTER(codecs(), "fp16", Fp16, NoOptions, "16-bit floats, 2 bytes a parameter, relative error at most 2^-11");

}  // namespace
}  // namespace fl
