#pragma once

#include <zlib.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <numeric>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/ml/dataset.h"

/// Tiny data files that tests of loaders write for themselves.
namespace fl::test {

inline std::string write_file(const std::filesystem::path& path, const std::string& contents) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << contents;
  return path.string();
}

/// `contents` as one gz member (RFC 1952).
inline std::string gz(const std::string& contents) {
  z_stream stream{};
  FL_CHECK(deflateInit2(&stream, 9, Z_DEFLATED, MAX_WBITS + 16, 8, Z_DEFAULT_STRATEGY) == Z_OK, "zlib cannot start");
  std::string out(deflateBound(&stream, contents.size()) + 32, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(contents.data()));
  stream.avail_in = static_cast<uInt>(contents.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  FL_CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END, "zlib cannot finish");
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

/// An IDX file: magic 00 00 08 axes, big-endian extents, then `values`.
inline std::string idx(std::initializer_list<std::uint32_t> extents, const std::string& values) {
  std::string out = {'\0', '\0', '\x08', static_cast<char>(extents.size())};
  for (const std::uint32_t extent : extents) {
    for (const unsigned shift : {24U, 16U, 8U, 0U}) out += static_cast<char>(extent >> shift & 0xffU);
  }
  return out + values;
}

/// Features of one example.
inline std::vector<float> example(const Dataset& data, std::uint32_t index) {
  std::vector<float> values(data.shape().input_size());
  data.gather({&index, 1}, values);
  return values;
}

}  // namespace fl::test
