#include "aggregator/engine/checkpoint.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/hex.h"
#include "fl_core/base/sha256.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

namespace fs = std::filesystem;

/// The journal's name for the number of the newest round that a power cut cannot take.
constexpr const char* kSyncedRound = "synced_round";

void write_all(int file, std::span<const std::byte> bytes, const fs::path& path) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t put = ::write(file, bytes.data() + done, bytes.size() - done);
    if (put >= 0) done += static_cast<std::size_t>(put);
    else if (errno != EINTR) fail_writing("write", path, errno);
  }
}

/// A file or folder that is open until the end of the scope.
class Open {
 public:
  Open(const fs::path& path, int flags) : file_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (file_ < 0) fail_writing("open", path, errno);
  }
  ~Open() { ::close(file_); }
  Open(const Open&) = delete;
  Open& operator=(const Open&) = delete;
  int get() const { return file_; }

 private:
  int file_;
};

/// Like write_file_atomically(), for a process that dies and not for a power cut.
void write_file_soon(const fs::path& path, std::span<const std::byte> bytes) {
  fs::path temporary = path;
  temporary += ".partial";
  {
    const Open file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    write_all(file.get(), bytes, path);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) fail_writing("rename", path, errno);
}

void wait_for_disk(const fs::path& path, int flags) {
  const Open file(path, flags);
  if (::fsync(file.get()) != 0) fail_writing("flush", path, errno);
}

/// The process that wrote its number into a lock file, as text.
std::string holder_of(int lock) {
  std::array<char, 16> text{};
  const ssize_t size = ::pread(lock, text.data(), text.size(), 0);
  std::string number(text.data(), size > 0 ? static_cast<std::size_t>(size) : 0);
  const bool digits = !number.empty() && std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
  return digits ? "process " + number : "another process";
}

/// Without exceptions: what cannot be seen is reported by whoever opens it.
bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

bool same_file(const fs::path& a, const fs::path& b) {
  struct stat first {};
  struct stat second {};
  return ::stat(a.c_str(), &first) == 0 && ::stat(b.c_str(), &second) == 0 && first.st_dev == second.st_dev &&
         first.st_ino == second.st_ino;
}

}  // namespace

RunFolder::RunFolder(const fs::path& path, RunFolderMode mode, const std::string& experiment) : path_(path) {
  const bool create = mode == RunFolderMode::create;
  if (create) {
    topmost_ = make_folder(path_);
    // A lock file of an earlier attempt may be there; anything else must not be, and then we leave no lock behind.
    if (!is_there(path_ / "lock")) check_unused();
  } else if (!is_there(path_ / "experiment.json") && !is_there(path_ / "journal.db")) {
    throw ConfigError(path_.string() + " holds no run: it has no experiment.json; expected the output folder of 'fl simulate'");
  }
  take_lock();
  try {
    if (create) {
      check_unused();
      if (!experiment.empty()) write_file_atomically(path_ / "experiment.json", experiment);
    }
    make_folder(path_ / "blobs");
    store_ = open_journal(path_ / "journal.db", create ? JournalMode::create : JournalMode::recover);
    if (!create) {
      check_ledger();
      recover();
    }
  } catch (...) {
    ::close(lock_);
    throw;
  }
  fresh_ = create;
}

RunFolder::~RunFolder() { ::close(lock_); }

void RunFolder::discard() {
  if (!std::exchange(fresh_, false)) return;
  store_.reset();
  // By name, and a folder only when it is empty: whatever else may be there is not ours.
  for (const char* name : {"experiment.json", "journal.db", "journal.db-wal", "journal.db-shm", "blobs", "lock"}) {
    std::error_code ignored;
    fs::remove(path_ / name, ignored);
  }
  remove_empty_folders(path_, topmost_);
}

std::string RunFolder::commit(CommittedRound round, const RoundReport& report, std::span<const std::byte> model,
                              std::span<const std::byte> state) {
  fresh_ = false;
  round.model_sha256 = write_blob(model);
  stepped("model blob written");
  round.state_sha256.reset();
  if (!state.empty()) round.state_sha256 = write_blob(state);
  stepped("state blob written");
  store_->commit_round(round, report);
  stepped("round committed");
  publish_model(round.model_sha256);
  stepped("model published");
  if (sync_every_ && std::chrono::steady_clock::now() >= next_sync_) sync();
  remove_old_blobs();
  stepped("old blobs removed");
  return round.model_sha256;
}

void RunFolder::sync_every(Seconds seconds) {
  FL_CHECK(ledger_.empty(), "a run with a privacy ledger waits for the disk");
  sync_every_ = seconds;
  sync();
  store_->wait_for_disk(false);
}

void RunFolder::sync() {
  if (!sync_every_) return;
  const std::optional<CommittedRound> last = store_->last_round();
  if (!last) return;
  store_->wait_for_disk(true);
  sync(*last);
  store_->wait_for_disk(false);
  synced_ = last;
  using Clock = std::chrono::steady_clock;
  next_sync_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(*sync_every_));
}

/// First what the journal names, then the journal.
void RunFolder::sync(const CommittedRound& round) {
  wait_for_disk(blob_path(round.model_sha256), O_RDONLY);
  if (round.state_sha256) wait_for_disk(blob_path(*round.state_sha256), O_RDONLY);
  wait_for_disk(path_ / "blobs", O_RDONLY | O_DIRECTORY);
  store_->set_meta(kSyncedRound, std::to_string(round.round));
}

void RunFolder::charge(nlohmann::json charge) {
  fresh_ = false;
  LedgerEntry entry = next_entry(ledger_, std::move(charge));
  store_->append_to_ledger(entry);
  ledger_.push_back(std::move(entry));
  stepped("round charged");
  write_head();
  stepped("ledger head written");
}

void RunFolder::write_head() {
  write_file_atomically(path_ / "ledger.head", head_text({ledger_.back().number, ledger_.back().hash}));
}

void RunFolder::check_ledger() {
  ledger_ = store_->ledger();
  const fs::path path = path_ / "ledger.head";
  std::optional<std::string> head;
  if (is_there(path)) {
    const std::vector<std::byte> bytes = read_file(path, 1024);
    head.emplace(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  const auto last = store_->last_round();
  const bool charged = !ledger_.empty() || head;
  const std::string fault = charged ? ledger_fault(ledger_, head, last ? last->round : 0) : "";
  if (!fault.empty()) {
    throw ConfigError("the privacy ledger of " + path_.string() + " cannot be trusted: " + fault + "; restore the newest copy of the whole folder, or start a new run");
  }
  if (!ledger_.empty()) write_head();
}

void RunFolder::complete(const RoundReport& report) {
  store_->complete_round(report);
  stepped("report stored");
  append_metrics(published(report));
  stepped("metrics appended");
}

std::vector<std::byte> RunFolder::read_blob(const std::string& sha256) const {
  if (!is_hex(sha256, 64)) throw ConfigError("the journal of " + path_.string() + " names no blob but '" + sha256 + "'; it is damaged");
  const fs::path path = blob_path(sha256);
  if (!is_there(path)) throw ConfigError(path.string() + " is missing; restore the run folder from a copy");
  std::vector<std::byte> bytes = read_file(path, limits::kSafetensorsBytes);
  const std::string actual = sha256_hex(bytes);
  if (actual != sha256) {
    throw ConfigError(path.string() + " is damaged: expected SHA-256 " + sha256 + ", got " + actual +
                      "; restore the run folder from a copy");
  }
  return bytes;
}

void RunFolder::take_lock() {
  const fs::path path = path_ / "lock";
  lock_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (lock_ < 0) fail_writing("create", path, errno);
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0) {
    const int error = errno;
    const std::string holder = holder_of(lock_);
    ::close(lock_);
    if (error != EWOULDBLOCK) fail_writing("lock", path, error);
    throw ConfigError(path_.string() + " is in use by " + holder + "; wait for it, or choose another --output");
  }
  const std::string number = std::to_string(::getpid());
  // Only a courtesy for the message above, so a full disk is reported where it matters.
  if (::ftruncate(lock_, 0) == 0) [[maybe_unused]] const ssize_t written = ::pwrite(lock_, number.data(), number.size(), 0);
}

void RunFolder::check_unused() const {
  if (is_there(path_ / "journal.db") || is_there(path_ / "experiment.json")) {
    throw ConfigError(path_.string() + " already holds a run; go on with 'fl resume " + path_.string() +
                      "' or choose another --output");
  }
  std::error_code error;
  fs::directory_iterator entries(path_, error);
  if (error) fail_writing("read the folder", path_, error.value());
  for (const fs::directory_entry& entry : entries) {
    const std::string name = entry.path().filename().string();
    if (name == "lock" || name == "experiment.json.partial") continue;  // of an attempt that died at once
    throw ConfigError(path_.string() + " is not empty (it has '" + name + "'); choose another --output");
  }
}

void RunFolder::recover() {
  const std::optional<CommittedRound> last = newest_whole_round();
  if (!last) return;  // it died before its first model was saved: there is nothing to put right
  read_blob(last->model_sha256);
  if (last->state_sha256) read_blob(*last->state_sha256);
  if (store_->meta(kSyncedRound)) sync(*last);
  publish_model(last->model_sha256);
  remove_old_blobs();
  std::string lines;
  for (const RoundReport& report : store_->reports()) lines += to_json(published(report)).dump() + "\n";
  write_file_atomically(path_ / "metrics.jsonl", lines);
}

bool RunFolder::is_whole(const CommittedRound& round) const {
  try {
    read_blob(round.model_sha256);
    if (round.state_sha256) read_blob(*round.state_sha256);
    return true;
  } catch (const ConfigError&) {
    return false;
  }
}

/// The newest round, or the one that a power cut left: it may have taken blobs of rounds since the last sync(), and those are forgotten.
std::optional<CommittedRound> RunFolder::newest_whole_round() {
  std::optional<CommittedRound> last = store_->last_round();
  const std::optional<std::string> synced = store_->meta(kSyncedRound);
  if (!last || !synced) return last;
  for (CommittedRound& round : store_->newest_rounds(last->round - std::stoull(*synced) + 1)) {
    if (!is_whole(round)) continue;
    if (round.round != last->round) store_->forget_rounds_after(round.round);
    return std::move(round);
  }
  return last;
}

std::string RunFolder::write_blob(std::span<const std::byte> bytes) {
  const std::string sha256 = sha256_hex(bytes);
  const fs::path path = blob_path(sha256);
  std::error_code absent;
  const bool there = fs::file_size(path, absent) == bytes.size() && !absent;
  if (!there && sync_every_) write_file_soon(path, bytes);
  if (!there && !sync_every_) write_file_atomically(path, bytes);
  return sha256;
}

void RunFolder::publish_model(const std::string& sha256) {
  const fs::path blob = blob_path(sha256);
  const fs::path model = path_ / "model.safetensors";
  if (same_file(blob, model)) return;  // rename() of two links to one file would do nothing and leave both
  const fs::path link = path_ / "model.safetensors.partial";
  ::unlink(link.c_str());
  if (::link(blob.c_str(), link.c_str()) != 0) {
    write_file_atomically(model, read_blob(sha256));  // no hard links here
    return;
  }
  if (::rename(link.c_str(), model.c_str()) != 0) fail_writing("replace", model, errno);
}

void RunFolder::remove_old_blobs() {
  std::set<std::string> keep;
  std::vector<CommittedRound> needed = store_->newest_rounds(2);
  if (synced_) needed.push_back(*synced_);
  for (const CommittedRound& round : needed) {
    keep.insert(round.model_sha256);
    if (round.state_sha256) keep.insert(*round.state_sha256);
  }
  std::error_code ignored;  // a blob too many does no harm
  std::vector<fs::path> old;
  for (const fs::directory_entry& entry : fs::directory_iterator(path_ / "blobs", ignored)) {
    if (keep.count(entry.path().filename().string()) == 0) old.push_back(entry.path());
  }
  for (const fs::path& path : old) fs::remove(path, ignored);
}

void RunFolder::append_metrics(const RoundReport& report) {
  const fs::path path = path_ / "metrics.jsonl";
  const std::string line = to_json(report).dump() + "\n";
  const Open file(path, O_WRONLY | O_APPEND | O_CREAT);
  write_all(file.get(), std::as_bytes(std::span(line)), path);
}

void RunFolder::stepped(const char* step) const {
  if (watcher_) watcher_(step);
}

}  // namespace fl
