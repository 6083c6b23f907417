#include "fl_core/ml/datasets/data_file.h"

#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"

namespace fl {
namespace {

/// No deflate stream grows by more (zlib's technical notes give 1032:1); a header that claims more is a lie or a bomb.
constexpr std::uint64_t kInflateRatio = 1032;
constexpr std::size_t kInflateChunk = std::size_t{1} << 30U;

bool has_gz_magic(std::span<const std::byte> bytes) {
  return bytes.size() >= 2 && bytes[0] == std::byte{0x1f} && bytes[1] == std::byte{0x8b};
}

/// Inflates a gz file (RFC 1952, one or more members) piece by piece.
class Inflater {
 public:
  Inflater(const std::string& path, std::span<const std::byte> source) : path_(path), source_(source) {
    FL_CHECK(inflateInit2(&stream_, MAX_WBITS + 16) == Z_OK, "zlib cannot start");
  }
  ~Inflater() { inflateEnd(&stream_); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;

  /// Fills `out`; returns less than its size only where the file ends. Checksums are checked at the end of each member.
  std::size_t read(std::span<std::uint8_t> out) {
    std::size_t done = 0;
    while (done < out.size() && !ended_) {
      const std::size_t offered = std::min(source_.size(), kInflateChunk);
      const std::size_t room = std::min(out.size() - done, kInflateChunk);
      stream_.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(source_.data()));
      stream_.avail_in = static_cast<uInt>(offered);
      stream_.next_out = out.data() + done;
      stream_.avail_out = static_cast<uInt>(room);
      const int result = inflate(&stream_, Z_NO_FLUSH);
      source_ = source_.subspan(offered - stream_.avail_in);
      done += room - stream_.avail_out;
      if (result == Z_STREAM_END) {
        next_member();
      } else if (result == Z_BUF_ERROR || (result == Z_OK && source_.empty() && stream_.avail_out != 0)) {
        throw ConfigError(path_ + ": the gz data end too early (an interrupted download?); fetch the file again");
      } else if (result != Z_OK) {
        throw ConfigError(path_ + ": damaged gz data (" + (stream_.msg == nullptr ? "zlib error" : stream_.msg) +
                          "); fetch the file again");
      }
    }
    return done;
  }

 private:
  void next_member() {
    ended_ = source_.empty();
    if (ended_) return;
    if (!has_gz_magic(source_)) {
      throw ConfigError(path_ + ": " + std::to_string(source_.size()) +
                        " bytes of something else follow the gz data; fetch the file again");
    }
    FL_CHECK(inflateReset(&stream_) == Z_OK, "zlib cannot go on");
  }

  const std::string& path_;
  std::span<const std::byte> source_;
  z_stream stream_{};
  bool ended_ = false;
};

}  // namespace

bool is_data_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(path, ignored);
}

DataFile::DataFile(std::string path, const std::string& hint) : path_(std::move(path)) {
  std::error_code error;
  if (!is_data_file(path_)) {
    const bool exists = std::filesystem::exists(path_, error);
    throw ConfigError(path_ + (exists ? ": is no regular file; " : ": no such file; ") + hint);
  }
  const std::uint64_t size = std::filesystem::file_size(path_, error);
  if (!error && size > limits::kDataFileBytes) {
    throw ConfigError(path_ + ": has " + std::to_string(size) + " bytes, expected at most " +
                      std::to_string(limits::kDataFileBytes));
  }
  bytes_ = read_file(path_, limits::kDataFileBytes);
  if (bytes_.empty()) throw ConfigError(path_ + ": is empty; " + hint);
}

bool DataFile::compressed() const { return has_gz_magic(bytes_); }

std::vector<std::uint8_t> DataFile::prefix(std::size_t count) const {
  std::vector<std::uint8_t> out(count);
  if (compressed()) {
    out.resize(Inflater(path_, bytes_).read(out));
  } else {
    out.resize(std::min(count, bytes_.size()));
    std::memcpy(out.data(), bytes_.data(), out.size());
  }
  return out;
}

std::vector<std::uint8_t> DataFile::exactly(std::uint64_t skip, std::uint64_t size, const std::string& layout) const {
  FL_CHECK(skip <= size, "DataFile::exactly skips more than the file");
  const auto wrong = [&](const std::string& found) {
    throw ConfigError(path_ + ": has " + found + ", expected " + std::to_string(size) + " (" + layout + ")" +
                      "; fetch the file again");
  };
  if (size > limits::kDataFileBytes) {
    throw ConfigError(path_ + ": claims " + layout + ", that is more than the limit of " +
                      std::to_string(limits::kDataFileBytes) + " bytes");
  }
  std::vector<std::uint8_t> out;
  if (!compressed()) {
    if (bytes_.size() != size) wrong(std::to_string(bytes_.size()) + " bytes");
    out.resize(size - skip);
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + skip, out.size());
    return out;
  }
  if (size / kInflateRatio > bytes_.size()) wrong("fewer bytes when inflated");
  Inflater inflater(path_, bytes_);
  std::vector<std::uint8_t> header(skip);
  out.resize(size - skip);
  const std::size_t got = inflater.read(header) + inflater.read(out);
  if (got != size) wrong(std::to_string(got) + " bytes when inflated");
  std::uint8_t beyond = 0;
  if (inflater.read({&beyond, 1}) != 0) wrong("more bytes when inflated");
  return out;
}

std::string DataFile::text() const {
  const auto check_size = [&](std::uint64_t size) {
    if (size <= limits::kDataTextBytes) return;
    throw ConfigError(path_ + ": has more than " + std::to_string(limits::kDataTextBytes) +
                      " bytes; split it or sample from it");
  };
  std::string out;
  if (!compressed()) {
    check_size(bytes_.size());
    out.assign(reinterpret_cast<const char*>(bytes_.data()), bytes_.size());
    return out;
  }
  Inflater inflater(path_, bytes_);
  std::vector<std::uint8_t> piece(std::size_t{1} << 20U);
  while (const std::size_t got = inflater.read(piece)) {
    check_size(out.size() + got);
    out.append(reinterpret_cast<const char*>(piece.data()), got);
  }
  return out;
}

}  // namespace fl
