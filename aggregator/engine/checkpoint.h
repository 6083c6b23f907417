#pragma once

#include <chrono>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "aggregator/store/journal.h"
#include "fl_core/round/types.h"

namespace fl {

enum class RunFolderMode : std::uint8_t {
  create,  ///< for a new run
  resume,  ///< for the run that is in it
};

/// The folder of one run, held by one process: `experiment.json`, `journal.db`, `blobs/<sha256>` (weights and server state by their hash),
/// `model.safetensors` (the newest weights), `metrics.jsonl` (one completed round a line) and `lock`.
///
/// A run with a promise of differential privacy also has `ledger.head`: where the journal's privacy ledger stands.
///
/// Crash anywhere: blobs are on disk before the journal names them, and one transaction makes a round the newest, so after
/// kill -9 or a full disk at any instant the run is at version k or k + 1. `model.safetensors` and `metrics.jsonl` follow
/// from the journal and are put right when the folder is opened again. The engine's thread alone calls it.
///
/// The same holds after a power cut, unless sync_every() was said: then the run is at a version since the last sync().
class RunFolder {
 public:
  /// create: makes the folder and puts `experiment` into experiment.json before anything else, so that a run that dies
  /// right away can be gone on with. Throws ConfigError when the folder holds anything, IoError when it cannot be written.
  /// resume: opens what create made, as far as create had come. Throws ConfigError when the folder holds no run.
  /// Both: ConfigError when another process works in it.
  RunFolder(const std::filesystem::path& path, RunFolderMode mode, const std::string& experiment = "");
  ~RunFolder();
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  /// For a run that was refused before its first commit, in a folder that create made: removes all that is this class's, and the folder if it
  /// was made here and nobody put anything else into it. Otherwise does nothing. The run folder is of no use any more after it.
  void discard();

  const std::filesystem::path& path() const { return path_; }
  Store& store() { return *store_; }

  /// From now on commits do not wait for the disk, but for one every so many seconds of real time, which is a sync(). Only for a run that
  /// nobody else keeps an account of: no clients that had receipts, no privacy ledger.
  void sync_every(Seconds seconds);
  /// Waits until all that was committed is on disk. Does nothing where every commit waits.
  void sync();

  /// Makes a round durable: blobs, then the journal, then model.safetensors; removes blobs that neither this round nor the
  /// one before needs. `model` is the safetensors file of the weights, `state` that of the server state (empty for none);
  /// the hashes in `round` are filled in here. Returns the model's SHA-256. After an IoError the round before is intact.
  std::string commit(CommittedRound round, const RoundReport& report, std::span<const std::byte> model,
                     std::span<const std::byte> state);
  /// Stores the final report and appends it to metrics.jsonl.
  void complete(const RoundReport& report);

  /// Charges a round to the privacy ledger: durable when it returns, so call it before anything of the round is asked for.
  void charge(nlohmann::json charge);
  /// All charges, checked when the folder was opened.
  const std::vector<LedgerEntry>& ledger() const { return ledger_; }

  /// A blob's bytes. Throws ConfigError naming the file when it is missing or its hash is another.
  std::vector<std::byte> read_blob(const std::string& sha256) const;

  /// Called after every step of charge(), commit() and complete() with the step's name: tests crash there.
  using StepWatcher = std::function<void(const std::string&)>;
  void watch_steps(StepWatcher watcher) { watcher_ = std::move(watcher); }

 private:
  void take_lock();
  void check_unused() const;
  void recover();
  void check_ledger();
  void write_head();
  void sync(const CommittedRound& round);
  bool is_whole(const CommittedRound& round) const;
  std::optional<CommittedRound> newest_whole_round();
  std::string write_blob(std::span<const std::byte> bytes);
  void publish_model(const std::string& sha256);
  void remove_old_blobs();
  void append_metrics(const RoundReport& report);
  void stepped(const char* step) const;
  std::filesystem::path blob_path(const std::string& sha256) const { return path_ / "blobs" / sha256; }

  std::filesystem::path path_;
  bool fresh_ = false;             ///< made by create, and nothing was charged or committed
  std::filesystem::path topmost_;  ///< the folder that create had to make, or its topmost new parent
  int lock_ = -1;
  std::unique_ptr<Store> store_;
  std::vector<LedgerEntry> ledger_;
  std::optional<Seconds> sync_every_;            ///< nothing: every commit waits for the disk
  std::optional<CommittedRound> synced_;         ///< the newest round that is on disk for sure, where not every one is
  std::chrono::steady_clock::time_point next_sync_;
  StepWatcher watcher_;
};

}  // namespace fl
