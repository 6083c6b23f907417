#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/base/buffer.h"
#include "fl_core/params/layout.h"

/// Tensors as bytes: the safetensors format (huggingface.co/docs/safetensors), which holds nothing but named arrays. Our
/// reader keeps to the letter of the specification, also where the reference reader is more generous, because two readers
/// that understand one file differently are a way in.
namespace fl {

/// One array of a file. `bytes` points into the file's bytes and has no alignment.
struct TensorView {
  std::string name;
  std::string dtype;  ///< "F32", "I64", … as in the file
  std::vector<std::int64_t> shape;
  std::span<const std::byte> bytes;
};

/// A parsed file; valid as long as the bytes that it was read from.
struct SafetensorsFile {
  std::vector<TensorView> tensors;  ///< in the order of their bytes
  std::map<std::string, std::string> metadata;
};

/// Reads a file's header and checks all of it: one JSON object that starts with '{', padded with spaces only, without
/// duplicate or unknown keys; known dtypes; at most limits::kTensorRank extents whose product cannot wrap; byte ranges that
/// cover the data without hole, overlap or rest; names of letters, digits and "_.-". The values are not looked at. The bytes
/// may come from a peer: throws ProtocolError. Allocates in proportion to the header, at most limits::kSafetensorsHeaderBytes.
SafetensorsFile read_safetensors(std::span<const std::byte> bytes);

/// A model as a safetensors file: one F32 tensor a slot, in slot order, data 64-byte aligned. The names of the statistic
/// slots are in the metadata; nothing else is, so equal models give equal bytes and `model_sha256` is their hash.
/// REQUIRES: values.size() == layout.size(), slot names as read_safetensors allows them.
Bytes write_safetensors(const Layout& layout, std::span<const float> values);

/// Reads a model of exactly this layout, tensors in any order. `source` names the file. Throws ConfigError naming the tensor,
/// what was expected and what is there.
void read_into(std::span<const std::byte> bytes, const Layout& layout, std::span<float> out, const std::string& source);

/// One-dimensional F32 tensors by name, for server state (optimizer moments). REQUIRES: unique names as above.
Bytes write_named_arrays(const std::vector<std::pair<std::string, std::span<const float>>>& arrays);
/// Fills `arrays` from what write_named_arrays wrote: exactly these names and lengths, or a ConfigError.
void read_named_arrays(std::span<const std::byte> bytes,
                       const std::vector<std::pair<std::string, std::span<float>>>& arrays, const std::string& source);

}  // namespace fl
