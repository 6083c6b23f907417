#include "client/state_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/hex.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr std::uint64_t kAnswerFileBytes = 4 * limits::kHeaderBytes;
constexpr std::size_t kPieceBytes = 1U << 20U;

SharedBuffer shared(std::vector<std::byte> bytes) {
  const auto owner = std::make_shared<const std::vector<std::byte>>(std::move(bytes));
  return {owner, std::span<const std::byte>(*owner)};
}

/// The entries of a folder; none of one that cannot be read. Never throws, unlike the iterator.
std::vector<fs::path> entries_of(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  fs::directory_iterator entry(folder, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) paths.push_back(entry->path());
  return paths;
}

void remove_quietly(const fs::path& path) {
  std::error_code ignored;
  fs::remove(path, ignored);
}

/// All of [offset, offset + bytes.size()); false with errno set.
bool write_at(int file, std::span<const std::byte> bytes, std::uint64_t offset) {
  while (!bytes.empty()) {
    const ssize_t put = ::pwrite(file, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return false;
    bytes = bytes.subspan(static_cast<std::size_t>(put));
    offset += static_cast<std::uint64_t>(put);
  }
  return true;
}

std::uint64_t read_from(int file, std::span<std::byte> out) {
  std::uint64_t done = 0;
  while (done < out.size()) {
    const ssize_t got = ::read(file, out.data() + done, out.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    done += static_cast<std::uint64_t>(got);
  }
  return done;
}

/// 0 for a file that is not there.
std::uint64_t bytes_in(const fs::path& path) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(path, error);
  return error ? 0 : size;
}

}  // namespace

PartialBlob::PartialBlob(const BlobReference& reference) : reference_(reference), bytes_(Bytes::uninitialised(static_cast<std::size_t>(reference.size_bytes))) {}
PartialBlob::~PartialBlob() {
  if (file_ >= 0) ::close(file_);
}

StateFolder::StateFolder(const fs::path& folder, std::uint64_t cache_bytes) : folder_(folder), cache_bytes_(cache_bytes) {
  if (folder_.empty()) return;
  make_folder(folder_ / "blobs");
  make_folder(folder_ / "pending");
  const fs::path path = folder_ / "lock";
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock_ < 0) throw IoError("cannot open " + path.string() + ": " + std::strerror(errno) + "; 'state' must be a folder that the client may write to");
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    ::close(lock_);
    throw ConfigError("state: " + folder_.string() + " is in use by another fl-client; give each client a folder of its own");
  }
}

StateFolder::~StateFolder() {
  if (lock_ >= 0) ::close(lock_);
}

std::string StateFolder::load_plan() const {
  std::error_code ignored;
  if (folder_.empty() || !fs::exists(folder_ / "plan.json", ignored)) return "";
  return read_text_file(folder_ / "plan.json", limits::kPlanBytes);
}

void StateFolder::store_plan(const std::string& text) {
  if (!folder_.empty()) write_file_atomically(folder_ / "plan.json", text);
}

std::optional<StoredAnswer> StateFolder::read_answer(const fs::path& path) const {
  try {
    const json stored = json::parse(read_text_file(path, kAnswerFileBytes));
    StoredAnswer answer;
    answer.key = path.stem().string();
    answer.run = stored.at("run").get<std::string>();
    answer.request = stored.at("request").get<std::uint64_t>();
    const auto type = stored.at("type").get<unsigned>();
    if (type != static_cast<unsigned>(MessageType::failed) && type != static_cast<unsigned>(MessageType::update)) return std::nullopt;
    answer.type = static_cast<MessageType>(type);
    answer.round = stored.at("round").get<std::uint32_t>();
    auto header = from_hex(stored.at("header").get<std::string>());
    const auto digest = from_hex(stored.at("sha256").get<std::string>());
    if (!header || !digest) return std::nullopt;
    answer.header = shared(std::move(*header));
    answer.body.size_bytes = stored.at("size").get<std::uint64_t>();
    if (!is_hex(answer.key, 64) || digest->size() != answer.body.sha256.size() || answer.header.size() > limits::kHeaderBytes) return std::nullopt;
    std::copy(digest->begin(), digest->end(), answer.body.sha256.begin());
    if (answer.body.size_bytes != 0 && bytes_in(path.parent_path() / (answer.key + ".body")) != answer.body.size_bytes) return std::nullopt;
    return answer;
  } catch (const json::exception&) {
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

std::vector<StoredAnswer> StateFolder::load_answers() {
  std::vector<StoredAnswer> answers;
  if (folder_.empty()) return answers;
  std::vector<fs::path> bodies;
  for (const fs::path& path : entries_of(folder_ / "pending")) {
    if (path.extension() == ".body") {
      bodies.push_back(path);
      continue;
    }
    std::optional<StoredAnswer> answer;
    if (path.extension() == ".json") answer = read_answer(path);
    if (answer) {
      answers.push_back(std::move(*answer));
    } else {
      remove_quietly(path);
    }
  }
  // A body without its .json was never complete, or was settled.
  for (const fs::path& path : bodies) {
    const std::string key = path.stem().string();
    if (std::none_of(answers.begin(), answers.end(), [&](const StoredAnswer& one) { return one.key == key; })) remove_quietly(path);
  }
  std::sort(answers.begin(), answers.end(), [](const StoredAnswer& a, const StoredAnswer& b) { return a.round != b.round ? a.round < b.round : a.key < b.key; });
  return answers;
}

void StateFolder::keep_answer(StoredAnswer& answer, const SharedBuffer& body) {
  FL_CHECK(answer.type == MessageType::update || answer.type == MessageType::failed, "an answer that must not be on disk");
  answer.body = reference_to(body.span());
  if (folder_.empty()) {
    bodies_[answer.key] = body;
    return;
  }
  const fs::path place = folder_ / "pending" / answer.key;
  if (body.size() != 0) write_file_atomically(place.string() + ".body", body.span(), FileAccess::owner);
  const json stored = {{"run", answer.run},
                       {"request", answer.request},
                       {"type", static_cast<unsigned>(answer.type)},
                       {"round", answer.round},
                       {"header", to_hex(answer.header.span())},
                       {"sha256", answer.body.hex()},
                       {"size", answer.body.size_bytes}};
  write_file_atomically(place.string() + ".json", stored.dump() + "\n", FileAccess::owner);
}

SharedBuffer StateFolder::load_body(const StoredAnswer& answer) {
  if (answer.body.size_bytes == 0) return {};
  if (folder_.empty()) {
    const auto found = bodies_.find(answer.key);
    if (found == bodies_.end()) throw IoError("the answer of round " + std::to_string(answer.round) + " is gone");
    return found->second;
  }
  const fs::path path = folder_ / "pending" / (answer.key + ".body");
  try {
    SharedBuffer body = shared(read_file(path, answer.body.size_bytes));
    if (reference_to(body.span()) != answer.body) throw IoError(path.string() + ": its contents have changed since they were written");
    return body;
  } catch (const Error&) {
    forget_answer(answer.key);
    throw;
  }
}

void StateFolder::forget_answer(const std::string& key) {
  bodies_.erase(key);
  if (folder_.empty() || !is_hex(key, 64)) return;
  remove_quietly(folder_ / "pending" / (key + ".json"));
  remove_quietly(folder_ / "pending" / (key + ".body"));
}

fs::path StateFolder::blob_path(const BlobReference& reference) const { return folder_ / "blobs" / reference.hex(); }

std::optional<SharedBuffer> StateFolder::find_blob(const BlobReference& reference) {
  if (newest_.size() != 0 && newest_reference_ == reference) return newest_;
  if (folder_.empty()) return std::nullopt;
  const fs::path path = blob_path(reference);
  if (bytes_in(path) != reference.size_bytes) return std::nullopt;
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) return std::nullopt;
  Bytes bytes(static_cast<std::size_t>(reference.size_bytes));
  const std::uint64_t got = read_from(file, bytes.span());
  ::close(file);
  if (got != reference.size_bytes || reference_to(bytes.span()) != reference) {
    remove_quietly(path);
    return std::nullopt;
  }
  std::error_code ignored;
  fs::last_write_time(path, fs::file_time_type::clock::now(), ignored);  // the cache drops what was not used for longest
  newest_ = SharedBuffer(std::move(bytes));
  newest_reference_ = reference;
  return newest_;
}

void StateFolder::drop_other_parts(const BlobReference& reference) const {
  for (const fs::path& path : entries_of(folder_ / "blobs")) {
    if (path.extension() == ".part" && path.stem() != reference.hex()) remove_quietly(path);
  }
}

std::shared_ptr<PartialBlob> StateFolder::open_part(const BlobReference& reference, bool keep) {
  if (part_ && part_->reference() == reference && part_->keep_ == keep) return part_;
  part_.reset();
  // Two models must not be held for the sake of one that is no longer asked for.
  if (keep) newest_ = {};
  auto part = std::make_shared<PartialBlob>(reference);
  part->keep_ = keep;
  if (keep && !folder_.empty()) {
    drop_other_parts(reference);
    const fs::path path = blob_path(reference).string() + ".part";
    part->file_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (part->file_ >= 0 && bytes_in(path) <= reference.size_bytes) part->stored_ = read_from(part->file_, part->bytes());
    // What a full disk or an older program left behind is not trusted beyond what was read.
    if (part->file_ >= 0 && ::ftruncate(part->file_, static_cast<off_t>(part->stored_)) != 0) part->stored_ = 0;
    part->hash_.add(part->bytes().first(static_cast<std::size_t>(part->stored_)));
  }
  part->received = part->stored_;
  part_ = part;
  return part;
}

std::string StateFolder::append(PartialBlob& part) {
  const std::uint64_t end = part.received.load();
  std::string complaint;
  while (part.stored_ < end) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kPieceBytes, end - part.stored_));
    const std::span<const std::byte> piece = part.bytes().subspan(static_cast<std::size_t>(part.stored_), size);
    part.hash_.add(piece);
    if (part.file_ >= 0 && !write_at(part.file_, piece, part.stored_)) {
      complaint = "cannot write " + blob_path(part.reference()).string() + ".part: " + std::strerror(errno) + "; the model is kept in memory only";
      ::close(part.file_);
      part.file_ = -1;
      remove_quietly(blob_path(part.reference()).string() + ".part");
    }
    part.stored_ += size;
  }
  return complaint;
}

std::optional<SharedBuffer> StateFolder::finish(const std::shared_ptr<PartialBlob>& part) {
  append(*part);
  FL_CHECK(part->stored_ == part->reference().size_bytes, "a blob that is not complete");
  if (part_ == part) part_.reset();
  const bool on_disk = part->file_ >= 0;
  const fs::path path = folder_.empty() ? fs::path() : blob_path(part->reference());
  if (part->hash_.finish() != part->reference().sha256) {
    if (on_disk) remove_quietly(path.string() + ".part");
    return std::nullopt;
  }
  if (!part->keep_) return SharedBuffer(part, part->bytes());
  if (on_disk) {
    std::error_code ignored;  // a file that cannot be renamed is only not cached
    fs::rename(path.string() + ".part", path, ignored);
    trim_cache(path.filename().string());
  }
  newest_ = SharedBuffer(part, part->bytes());
  newest_reference_ = part->reference();
  return newest_;
}

void StateFolder::trim_cache(const std::string& newest) const {
  struct Cached {
    fs::file_time_type used;
    std::uint64_t size;
    fs::path path;
  };
  std::vector<Cached> all;
  std::uint64_t total = 0;
  for (const fs::path& path : entries_of(folder_ / "blobs")) {
    std::error_code ignored;
    const Cached one{fs::last_write_time(path, ignored), bytes_in(path), path};
    total += one.size;
    if (one.path.filename() != newest) all.push_back(one);
  }
  std::sort(all.begin(), all.end(), [](const Cached& a, const Cached& b) { return a.used < b.used; });
  for (const Cached& one : all) {
    if (total <= cache_bytes_) return;
    remove_quietly(one.path);
    total -= one.size;
  }
}

}  // namespace fl
