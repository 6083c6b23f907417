#include "fl_core/wire/tensors.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <nlohmann/json.hpp>
#include <tuple>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

using nlohmann::json;

static_assert(std::endian::native == std::endian::little, "safetensors data are little-endian and are copied as they are");

constexpr std::size_t kLengthBytes = 8;
constexpr const char* kFormat = "tributary-1";
constexpr const char* kMetadata = "__metadata__";

[[noreturn]] void fail(const std::string& reason) { throw ProtocolError("not a valid safetensors file: " + reason); }

/// Bits of one element; 0 for a dtype that the specification does not know.
std::uint64_t dtype_bits(const std::string& dtype) {
  static const std::map<std::string, std::uint64_t> kBits = {
      {"BOOL", 8},    {"U8", 8},      {"I8", 8},          {"F8_E4M3", 8},     {"F8_E5M2", 8}, {"F8_E8M0", 8},
      {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16}, {"U16", 16},       {"F16", 16},    {"BF16", 16},
      {"I32", 32},    {"U32", 32},    {"F32", 32},        {"I64", 64},        {"U64", 64},    {"F64", 64},
      {"C64", 64},    {"F4", 4},      {"F6_E2M3", 6},     {"F6_E3M2", 6}};
  const auto place = kBits.find(dtype);
  return place == kBits.end() ? 0 : place->second;
}

bool is_tensor_name(const std::string& name) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' || c == '-';
  };
  return !name.empty() && name.size() <= limits::kNameBytes && name != kMetadata && name[0] != '.' && name[0] != '-' &&
         std::all_of(name.begin(), name.end(), allowed);
}

std::string shown_shape(const std::vector<std::int64_t>& shape) { return json(shape).dump(); }

std::uint64_t to_count(const json& value, const std::string& name) {
  if (!value.is_number_unsigned()) fail("tensor '" + name + "': " + shown(value) + " is not a count");
  return value.get<std::uint64_t>();
}

std::vector<std::int64_t> read_shape(const json& extents, const std::string& name) {
  if (!extents.is_array() || extents.size() > limits::kTensorRank) {
    fail("tensor '" + name + "': shape must be a list of at most " + std::to_string(limits::kTensorRank) + " extents");
  }
  std::vector<std::int64_t> shape;
  for (const json& extent : extents) {
    const std::uint64_t count = to_count(extent, name);
    if (!std::in_range<std::int64_t>(count)) fail("tensor '" + name + "': an extent beyond 2^63");
    shape.push_back(static_cast<std::int64_t>(count));
  }
  return shape;
}

/// Whole bytes of an array. Zero extents do not excuse the others: their product must not wrap either.
std::uint64_t byte_size(const std::vector<std::int64_t>& shape, std::uint64_t bits, const std::string& name) {
  std::uint64_t product = bits;
  bool empty = false;
  for (const std::int64_t extent : shape) {
    const auto count = static_cast<std::uint64_t>(extent);
    empty = empty || count == 0;
    if (count == 0) continue;
    if (product > std::numeric_limits<std::uint64_t>::max() / count) fail("tensor '" + name + "': the shape overflows");
    product *= count;
  }
  if (empty) return 0;
  if (product % 8 != 0) fail("tensor '" + name + "' does not end on a whole byte");
  return product / 8;
}

/// A tensor whose `begin` and `end` still wait for the check against its neighbours.
struct Entry {
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  TensorView tensor;
};

Entry read_entry(const std::string& name, const json& value) {
  if (!is_tensor_name(name)) fail("the tensor name " + shown(name) + " has other characters than letters, digits and _.-");
  const bool keys = value.is_object() && value.size() == 3 && value.contains("dtype") && value.contains("shape") &&
                    value.contains("data_offsets");
  if (!keys) fail("tensor '" + name + "' must have exactly the keys dtype, shape and data_offsets");
  const json& dtype = value["dtype"];
  const std::uint64_t bits = dtype.is_string() ? dtype_bits(dtype.get<std::string>()) : 0;
  if (bits == 0) fail("tensor '" + name + "': unknown dtype " + shown(dtype));
  const json& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) fail("tensor '" + name + "': data_offsets must be [begin, end]");
  Entry entry;
  entry.begin = to_count(offsets[0], name);
  entry.end = to_count(offsets[1], name);
  entry.tensor = {name, dtype.get<std::string>(), read_shape(value["shape"], name), {}};
  const std::uint64_t size = byte_size(entry.tensor.shape, bits, name);
  if (entry.end < entry.begin || entry.end - entry.begin != size) {
    fail("tensor '" + name + "': data_offsets " + shown(offsets) + " do not hold " + std::to_string(size) + " bytes");
  }
  return entry;
}

json read_header(std::span<const std::byte> bytes) {
  if (bytes.size() < kLengthBytes) fail("it has " + std::to_string(bytes.size()) + " bytes");
  std::uint64_t size = 0;
  std::memcpy(&size, bytes.data(), kLengthBytes);
  if (size > limits::kSafetensorsHeaderBytes || size > bytes.size() - kLengthBytes) {
    fail("a header of " + std::to_string(size) + " bytes in a file of " + std::to_string(bytes.size()) + ", the limit is " +
         std::to_string(limits::kSafetensorsHeaderBytes));
  }
  const std::string text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, static_cast<std::size_t>(size));
  const auto last = text.find_last_not_of(' ');
  if (text.empty() || text.front() != '{' || text[last] != '}') {
    fail("the header must be a JSON object from its first byte on, followed by spaces only");
  }
  try {
    return parse_json(text, "header");
  } catch (const ConfigError& error) {
    fail(error.what());
  } catch (const json::exception& error) {  // a number beyond double is no parse_error
    fail(std::string("header: ") + error.what());
  }
}

Bytes write_file(const std::vector<Entry>& entries, const std::string& statistics) {
  std::string header = std::string("{\"") + kMetadata + "\":{\"format\":\"" + kFormat + "\",\"statistics\":\"" + statistics + "\"}";
  for (const Entry& entry : entries) {
    const std::string& name = entry.tensor.name;
    FL_CHECK(is_tensor_name(name), "'" + name + "' is no name for a tensor in a file");
    header += ",\"" + name + "\":{\"dtype\":\"F32\",\"shape\":" + shown_shape(entry.tensor.shape) + ",\"data_offsets\":[" +
              std::to_string(entry.begin) + "," + std::to_string(entry.end) + "]}";
  }
  header += "}";
  header.append((kAlignment - (kLengthBytes + header.size()) % kAlignment) % kAlignment, ' ');
  FL_CHECK(header.size() <= limits::kSafetensorsHeaderBytes, "too many tensors for one safetensors file");

  const std::uint64_t header_size = header.size();
  const std::size_t data_at = kLengthBytes + header.size();
  Bytes file(data_at + (entries.empty() ? 0 : static_cast<std::size_t>(entries.back().end)));
  std::memcpy(file.data(), &header_size, kLengthBytes);
  std::memcpy(file.data() + kLengthBytes, header.data(), header.size());
  for (const Entry& entry : entries) {
    const std::span<const std::byte> source = entry.tensor.bytes;
    if (!source.empty()) std::memcpy(file.data() + data_at + entry.begin, source.data(), source.size());
  }
  return file;
}

/// Where one tensor of a file is to be copied.
struct Target {
  std::string name;
  std::vector<std::int64_t> shape;
  std::span<float> out;
};

SafetensorsFile read_or_config_error(std::span<const std::byte> bytes, const std::string& source) {
  try {
    return read_safetensors(bytes);
  } catch (const ProtocolError& error) {
    throw ConfigError(source + ": " + error.what());
  }
}

void copy_exactly(const SafetensorsFile& file, const std::vector<Target>& targets, const std::string& source) {
  std::map<std::string, const TensorView*> found;
  for (const TensorView& tensor : file.tensors) found[tensor.name] = &tensor;
  std::vector<const TensorView*> sources;
  for (const Target& target : targets) {
    const std::string expected = "expected F32 " + shown_shape(target.shape);
    const auto place = found.find(target.name);
    if (place == found.end()) throw ConfigError(source + ": tensor '" + target.name + "': " + expected + ", got none");
    const TensorView& tensor = *place->second;
    if (tensor.dtype != "F32" || tensor.shape != target.shape) {
      throw ConfigError(source + ": tensor '" + target.name + "': " + expected + ", got " + tensor.dtype + " " +
                        shown_shape(tensor.shape));
    }
    sources.push_back(&tensor);
    found.erase(place);
  }
  if (!found.empty()) {
    const TensorView& tensor = *found.begin()->second;
    throw ConfigError(source + ": tensor '" + tensor.name + "': expected none of that name, got " + tensor.dtype + " " +
                      shown_shape(tensor.shape));
  }
  // A second pass, so that a file that does not fit leaves the targets as they were.
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const std::span<const std::byte> values = sources[i]->bytes;
    if (!values.empty()) std::memcpy(targets[i].out.data(), values.data(), values.size());
  }
}

std::string statistic_names(const Layout& layout) {
  std::string names;
  for (const Slot& slot : layout.slots()) {
    if (slot.kind == SlotKind::statistic) names += (names.empty() ? "" : ",") + slot.name;
  }
  return names;
}

}  // namespace

SafetensorsFile read_safetensors(std::span<const std::byte> bytes) {
  if (bytes.size() > limits::kSafetensorsBytes) fail("it is larger than " + std::to_string(limits::kSafetensorsBytes) + " bytes");
  const json header = read_header(bytes);
  SafetensorsFile file;
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name != kMetadata) {
      entries.push_back(read_entry(name, value));
      continue;
    }
    if (!value.is_object()) fail("__metadata__ must map text to text");
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ must map text to text");
      file.metadata[key] = text.get<std::string>();
    }
  }
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.begin, a.end, a.tensor.name) < std::tie(b.begin, b.end, b.tensor.name);
  });
  std::uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), kLengthBytes);
  const auto data = bytes.subspan(kLengthBytes + static_cast<std::size_t>(header_size));
  std::uint64_t at = 0;
  for (Entry& entry : entries) {
    if (entry.begin != at) fail("tensor '" + entry.tensor.name + "' does not start where the one before it ends");
    if (entry.end > data.size()) fail("tensor '" + entry.tensor.name + "' ends after the file");
    entry.tensor.bytes = data.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(entry.end - at));
    at = entry.end;
    file.tensors.push_back(std::move(entry.tensor));
  }
  if (at != data.size()) fail(std::to_string(data.size() - at) + " bytes after the last tensor");
  return file;
}

Bytes write_safetensors(const Layout& layout, std::span<const float> values) {
  FL_CHECK(values.size() == layout.size(), "write_safetensors needs one value for each float of the layout");
  std::vector<Entry> entries;
  for (const Slot& slot : layout.slots()) {
    const auto bytes = std::as_bytes(values.subspan(slot.offset, slot.size));
    const std::uint64_t begin = slot.offset * sizeof(float);
    entries.push_back({begin, begin + bytes.size(), {slot.name, "F32", slot.shape, bytes}});
  }
  return write_file(entries, statistic_names(layout));
}

void read_into(std::span<const std::byte> bytes, const Layout& layout, std::span<float> out, const std::string& source) {
  FL_CHECK(out.size() == layout.size(), "read_into needs one place for each float of the layout");
  const SafetensorsFile file = read_or_config_error(bytes, source);
  const auto statistics = file.metadata.find("statistics");
  // Files of other programs do not say which tensors are statistics.
  if (statistics != file.metadata.end() && statistics->second != statistic_names(layout)) {
    throw ConfigError(source + ": __metadata__.statistics: expected '" + statistic_names(layout) + "', got '" +
                      statistics->second + "'");
  }
  std::vector<Target> targets;
  for (const Slot& slot : layout.slots()) targets.push_back({slot.name, slot.shape, out.subspan(slot.offset, slot.size)});
  copy_exactly(file, targets, source);
}

Bytes write_named_arrays(const std::vector<std::pair<std::string, std::span<const float>>>& arrays) {
  std::vector<Entry> entries;
  std::uint64_t begin = 0;
  for (const auto& [name, values] : arrays) {
    const bool unique = std::none_of(entries.begin(), entries.end(), [&, &wanted = name](const Entry& e) { return e.tensor.name == wanted; });
    FL_CHECK(unique, "two arrays named '" + name + "'");
    const auto bytes = std::as_bytes(values);
    entries.push_back({begin, begin + bytes.size(), {name, "F32", {static_cast<std::int64_t>(values.size())}, bytes}});
    begin += bytes.size();
  }
  return write_file(entries, "");
}

void read_named_arrays(std::span<const std::byte> bytes,
                       const std::vector<std::pair<std::string, std::span<float>>>& arrays, const std::string& source) {
  std::vector<Target> targets;
  for (const auto& [name, values] : arrays) targets.push_back({name, {static_cast<std::int64_t>(values.size())}, values});
  copy_exactly(read_or_config_error(bytes, source), targets, source);
}

}  // namespace fl
