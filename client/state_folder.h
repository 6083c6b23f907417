#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fl_core/base/buffer.h"
#include "fl_core/base/sha256.h"
#include "fl_core/wire/frame.h"

namespace fl {

/// A finished answer and what it answers. It is on disk before it is offered to the server, and until the server has settled it;
/// answers of secure aggregation never are.
struct StoredAnswer {
  std::string key;            ///< of the task, 64 hex digits
  std::string run;            ///< identity of the run
  std::uint64_t request = 0;  ///< that the task last had
  MessageType type = MessageType::update;
  std::uint32_t round = 0;
  SharedBuffer header;
  BlobReference body;         ///< hash and size; size 0 for an answer without a body
};

/// A blob on its way in, all of it in memory. One thread fills it from the front and announces with `received`; the storage
/// thread hashes and writes what was announced.
class PartialBlob {
 public:
  explicit PartialBlob(const BlobReference& reference);
  ~PartialBlob();
  PartialBlob(const PartialBlob&) = delete;
  PartialBlob& operator=(const PartialBlob&) = delete;

  const BlobReference& reference() const { return reference_; }
  std::span<std::byte> bytes() { return bytes_.span(); }
  std::atomic<std::uint64_t> received{0};
  std::atomic<bool> looked_at{false};  ///< the storage thread was told to append

 private:
  friend class StateFolder;

  BlobReference reference_;
  Bytes bytes_;
  Sha256 hash_;
  std::uint64_t stored_ = 0;  ///< hashed and written
  int file_ = -1;             ///< -1: kept in memory only
  bool keep_ = true;
};

/// What a deployed client keeps between rounds, connections and restarts: the plan, blobs by their hash, answers not yet settled.
/// Used by one thread at a time (after loading: the storage thread). Without a folder everything is kept in memory.
///
///   lock               held while a client uses the folder
///   plan.json          the server's plan
///   blobs/SHA256       whole blobs, hash-checked; the oldest go when there are more than cache_bytes
///   blobs/SHA256.part  the beginning of the blob that is being fetched
///   participations.json  updates let out under each privacy promise
///   masked_rounds.json  newest round of each run in which a masked update was let out
///   pending/KEY.json   an answer; KEY.body beside it is its body, written first
class StateFolder {
 public:
  /// `folder` empty: in memory. Throws ConfigError when another process uses the folder, IoError.
  StateFolder(const std::filesystem::path& folder, std::uint64_t cache_bytes);
  ~StateFolder();
  StateFolder(const StateFolder&) = delete;
  StateFolder& operator=(const StateFolder&) = delete;

  /// Where a ParticipationLog belongs; empty in memory.
  std::filesystem::path participations_file() const { return folder_.empty() ? std::filesystem::path() : folder_ / "participations.json"; }

  /// Where MaskedRounds belong; empty in memory.
  std::filesystem::path masked_rounds_file() const { return folder_.empty() ? std::filesystem::path() : folder_ / "masked_rounds.json"; }

  /// The plan's text; empty for none.
  std::string load_plan() const;
  void store_plan(const std::string& text);

  /// Answers in order of their rounds. Files that are damaged or half written are removed.
  std::vector<StoredAnswer> load_answers();
  /// Durable when it returns. Fills in answer.body. REQUIRES: an update or a failure.
  void keep_answer(StoredAnswer& answer, const SharedBuffer& body);
  /// The body of a kept answer, hash-checked. Throws IoError when it is gone or damaged; then the answer was forgotten.
  SharedBuffer load_body(const StoredAnswer& answer);
  void forget_answer(const std::string& key);

  /// A whole blob that is held, hash-checked.
  std::optional<SharedBuffer> find_blob(const BlobReference& reference);
  /// Begins or goes on with a blob; `received` says how much is there. Parts of other blobs are dropped. Without `keep` it never
  /// reaches the disk and is not found again once it is finished. May throw std::bad_alloc: callers bound the size.
  std::shared_ptr<PartialBlob> open_part(const BlobReference& reference, bool keep = true);
  /// Hashes and writes what was received since. Returns what the disk complained about, once; the blob is then kept in memory only.
  std::string append(PartialBlob& part);
  /// REQUIRES: everything was received. The blob, or nothing when its hash is wrong: then the part is dropped.
  std::optional<SharedBuffer> finish(const std::shared_ptr<PartialBlob>& part);

 private:
  std::filesystem::path blob_path(const BlobReference& reference) const;
  void drop_other_parts(const BlobReference& reference) const;
  void trim_cache(const std::string& newest) const;
  std::optional<StoredAnswer> read_answer(const std::filesystem::path& path) const;

  std::filesystem::path folder_;
  std::uint64_t cache_bytes_;
  int lock_ = -1;
  std::shared_ptr<PartialBlob> part_;
  BlobReference newest_reference_;
  SharedBuffer newest_;
  std::map<std::string, SharedBuffer> bodies_;  ///< of answers, without a folder
};

}  // namespace fl
