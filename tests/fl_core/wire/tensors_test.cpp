#include "fl_core/wire/tensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/file.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/wire/limits.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::StartsWith;

Layout small_layout() {
  return Layout({{"0.weight", {2, 3}}, {"0.bias", {3}}, {"1.running_mean", {1}, SlotKind::statistic}});
}

std::vector<float> small_values() {
  return {1.5F, -0.0F, std::numeric_limits<float>::denorm_min(), std::numeric_limits<float>::infinity(),
          std::bit_cast<float>(0x7fc00001U), 6, 7, 8, 9, 10};
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A file with this header and `data_size` zero bytes.
std::string file_of(const std::string& header, std::size_t data_size) {
  std::string file(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) file[i] = static_cast<char>(static_cast<unsigned char>(header.size() >> (8 * i)));
  return file + header + std::string(data_size, '\0');
}

std::string read_error(const std::string& header, std::size_t data_size = 0) {
  return error_of([&] { read_safetensors(bytes_of(file_of(header, data_size))); });
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

json published_cases() { return read_json_file(std::string(FL_TEST_DATA) + "/safetensors_cases.json")["cases"]; }

TEST(Safetensors, ReaderDecidesEveryPublishedCase) {
  const json cases = published_cases();
  ASSERT_EQ(cases.size(), 56U);
  for (const json& item : cases) {
    const std::string bytes = from_hex(item["bytes_hex"]);
    const std::string expected = item["strict_reader"];
    const std::string error = error_of([&] { read_safetensors(bytes_of(bytes)); });
    EXPECT_EQ(error.empty(), expected.starts_with("accept")) << item["name"] << ": expected " << expected << ", got: " << error;
  }
}

TEST(Safetensors, ReaderThrowsProtocolErrorsOnly) {
  const json cases = published_cases();
  for (const json& item : cases) {
    if (item["strict_reader"] == "reject") {
      EXPECT_THROW(read_safetensors(bytes_of(from_hex(item["bytes_hex"]))), ProtocolError) << item["name"];
    }
  }
}

TEST(Safetensors, ModelComesBackBitForBit) {
  const std::vector<float> values = small_values();
  const Bytes file = write_safetensors(small_layout(), values);
  std::vector<float> got(values.size());
  read_into(file.span(), small_layout(), got, "model.safetensors");
  EXPECT_EQ(std::memcmp(got.data(), values.data(), values.size() * sizeof(float)), 0);
}

TEST(Safetensors, WriterGivesTheBytesOfTheFormat) {
  // By the specification: length, JSON, spaces up to a multiple of 64 (8 + 184 = 192), then the floats in slot order.
  const Bytes file = write_safetensors(Layout({{"w", {2}}, {"m", {1}, SlotKind::statistic}}), std::vector<float>{1, 2, 3});
  const std::string header =
      R"({"__metadata__":{"format":"tributary-1","statistics":"m"},)"
      R"("w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"m":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}})";
  std::string expected = file_of(header + std::string(184 - header.size(), ' '), 0);
  expected += from_hex("0000803f0000004000004040");  // 1, 2, 3 in little-endian binary32
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(file.data()), file.size()), expected);
}

TEST(Safetensors, DataStartOnACacheLine) {
  for (std::size_t length = 1; length < 70; ++length) {
    const Bytes file = write_safetensors(Layout({{std::string(length, 'w'), {1}}}), std::vector<float>{1});
    EXPECT_EQ((file.size() - sizeof(float)) % 64, 0U) << length;
  }
}

TEST(Safetensors, EqualModelsHaveEqualHashes) {
  const auto hash = [](float last) {
    std::vector<float> values = small_values();
    values.back() = last;
    return sha256_hex(write_safetensors(small_layout(), values).span());
  };
  EXPECT_EQ(hash(10), hash(10));
  EXPECT_NE(hash(10), hash(11));
}

TEST(Safetensors, ReaderGivesTensorsInTheOrderOfTheirBytes) {
  const std::string file = file_of(R"({"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"z":{"dtype":"F32","shape":[0],)"
                                   R"("data_offsets":[2,2]},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 4);
  std::vector<std::string> names;
  const SafetensorsFile parsed = read_safetensors(bytes_of(file));
  for (const TensorView& tensor : parsed.tensors) names.push_back(tensor.name);
  EXPECT_THAT(names, ElementsAre("a", "z", "b"));
}

TEST(Safetensors, ReaderRefusesWhatTheCasesLeaveOut) {
  EXPECT_THAT(read_error(R"({"a":{"dtype":"U8","shape":[1e999],"data_offsets":[0,1]}})", 1), HasSubstr("too large"));
  EXPECT_THAT(read_error(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1), HasSubstr("at most 8"));
  EXPECT_EQ(read_error(R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1), "");
  EXPECT_THAT(read_error(R"({"a":{"dtype":"U8","shape":[true],"data_offsets":[0,1]}})", 1), HasSubstr("not a count"));
  EXPECT_THAT(read_error(R"({"a":{"dtype":1,"shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("unknown dtype 1"));
  EXPECT_THAT(read_error(R"({"a b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("letters, digits"));
  EXPECT_THAT(read_error(R"({"a":[]})"), HasSubstr("exactly the keys"));
  // 2^32 · 2^32 wraps, whatever the extent before it; each extent alone is fine.
  EXPECT_THAT(read_error(R"({"a":{"dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}})"), HasSubstr("overflows"));
  EXPECT_THAT(read_error(R"({"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("letters, digits"));
  EXPECT_THAT(read_error(R"({"__metadata__":{"a":"b","a":"b"}})"), HasSubstr("twice"));
  EXPECT_THAT(read_error(std::string("{}\0", 3)), HasSubstr("followed by spaces only"));
  std::string deep = "{\"a\":" + std::string(100000, '[') + std::string(100000, ']') + "}";
  EXPECT_THAT(read_error(deep), HasSubstr("nested deeper"));
  const std::uint64_t size = limits::kSafetensorsHeaderBytes + 1;
  EXPECT_THAT(read_error("{" + std::string(size - 2, ' ') + "}"), HasSubstr("the limit is"));
}

TEST(Safetensors, ReadIntoNamesTheTensorThatDoesNotFit) {
  const Bytes file = write_safetensors(small_layout(), small_values());
  const auto error_for = [&](const Layout& layout) {
    std::vector<float> out(layout.size(), 42);
    const std::string error = error_of([&] { read_into(file.span(), layout, out, "init.safetensors"); });
    EXPECT_EQ(out, std::vector<float>(layout.size(), 42)) << "a file that does not fit must change nothing";
    EXPECT_THAT(error, StartsWith("init.safetensors: "));
    return error;
  };
  const Slot mean = {"1.running_mean", {1}, SlotKind::statistic};
  EXPECT_THAT(error_for(Layout({{"0.weight", {3, 2}}, {"0.bias", {3}}, mean})),
              HasSubstr("tensor '0.weight': expected F32 [3,2], got F32 [2,3]"));
  EXPECT_THAT(error_for(Layout({{"0.weight", {2, 3}}, {"0.bias", {3}}, {"2.bias", {1}}, mean})),
              HasSubstr("tensor '2.bias': expected F32 [1], got none"));
  EXPECT_THAT(error_for(Layout({{"0.weight", {2, 3}}, mean})), HasSubstr("tensor '0.bias': expected none of that name, got F32 [3]"));
  EXPECT_THAT(error_for(Layout({{"0.weight", {2, 3}}, {"0.bias", {3}}, {"1.running_mean", {1}}})),
              HasSubstr("statistics: expected '', got '1.running_mean'"));
}

TEST(Safetensors, ReadIntoTakesFilesOfOtherPrograms) {
  // No metadata, no padding (the floats are not aligned), another order.
  std::string file = file_of(R"({"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[],"data_offsets":[4,8]}})", 0);
  file += from_hex("0000803f00000040");  // b = 1, a = 2
  std::vector<float> out(2);
  read_into(bytes_of(file), Layout({{"a", {}}, {"b", {1}}}), out, "x");
  EXPECT_THAT(out, ElementsAre(2.0F, 1.0F));
  EXPECT_THAT(error_of([&] { read_into(bytes_of("no"), Layout({{"a", {}}, {"b", {1}}}), out, "x"); }),
              StartsWith("x: not a valid safetensors file"));
}

TEST(NamedArrays, ComeBackByName) {
  const std::vector<float> momentum = {1, 2, 3};
  const std::vector<float> variance = {4};
  const Bytes file = write_named_arrays({{"momentum", momentum}, {"variance", variance}, {"none", {}}});
  std::vector<float> m(3);
  std::vector<float> v(1);
  read_named_arrays(file.span(), {{"variance", v}, {"momentum", m}, {"none", {}}}, "state");
  EXPECT_EQ(m, momentum);
  EXPECT_EQ(v, variance);
  EXPECT_THAT(error_of([&] { read_named_arrays(file.span(), {{"variance", v}, {"momentum", m}}, "state"); }),
              HasSubstr("tensor 'none': expected none of that name"));
  EXPECT_THAT(error_of([&] { read_named_arrays(file.span(), {{"variance", m}, {"momentum", m}, {"none", {}}}, "state"); }),
              HasSubstr("tensor 'variance': expected F32 [3], got F32 [1]"));
}

}  // namespace
}  // namespace fl
