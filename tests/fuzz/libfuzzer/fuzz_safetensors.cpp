// A model file or a blob from a peer: read_safetensors and read_into over any bytes.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/params/layout.h"
#include "fl_core/wire/tensors.h"

namespace fl {
namespace {

/// The extents cannot have wrapped: a tensor has no more elements than half-bytes, the smallest dtype.
void check_extents(const TensorView& tensor) {
  double elements = 1;
  for (const std::int64_t extent : tensor.shape) elements *= static_cast<double>(extent);
  FL_CHECK(elements <= 2 * static_cast<double>(tensor.bytes.size()), "a tensor with more elements than its bytes can hold");
}

/// What was accepted covers the end of the file once, in order, without hole or overlap.
void check_cover(const SafetensorsFile& file, std::span<const std::byte> bytes) {
  std::size_t data_bytes = 0;
  for (const TensorView& tensor : file.tensors) data_bytes += tensor.bytes.size();
  FL_CHECK(data_bytes <= bytes.size(), "tensors larger than their file");
  const std::byte* expected = bytes.data() + (bytes.size() - data_bytes);
  for (const TensorView& tensor : file.tensors) {
    FL_CHECK(tensor.bytes.empty() || tensor.bytes.data() == expected, "a tensor does not start where the one before ends");
    expected += tensor.bytes.size();
    check_extents(tensor);
  }
}

void fuzz_one(std::span<const std::byte> bytes) {
  static const Layout layout({{"0.weight", {2, 3}}, {"0.bias", {3}}, {"1.mean", {1}, SlotKind::statistic}});
  bool well_formed = false;
  try {
    check_cover(read_safetensors(bytes), bytes);
    well_formed = true;
  } catch (const ProtocolError&) {
  }
  std::vector<float> out(layout.size());
  try {
    read_into(bytes, layout, out, "model.safetensors");
    FL_CHECK(well_formed, "a malformed file was read as a model");
  } catch (const ProtocolError&) {
  } catch (const ConfigError&) {
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
