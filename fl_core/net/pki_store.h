#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "fl_core/net/pki.h"

/// The files of an Authority, and what its inputs must look like; inside fl_net only.
namespace fl::pki {

struct IndexEntry {
  std::string name;
  CertificateRole role = CertificateRole::client;
  std::string serial;
  std::int64_t not_before = 0;
  std::int64_t not_after = 0;
  std::vector<std::string> hosts;
  std::string public_key;  ///< DER (SubjectPublicKeyInfo) in hexadecimal: renewing needs no other file
  std::int64_t revoked_at = 0;

  bool live(std::int64_t now) const { return revoked_at == 0 && not_after > now; }
};

struct IndexToken {
  std::string name;
  std::string token;  ///< "" once it was used: only the fact is kept, to explain a replay
  std::int64_t expires = 0;
  std::int64_t used_at = 0;
};

/// index.json. A token is enough to enrol as its name, so the file is private like ca.key beside it.
struct Index {
  std::int64_t crl_number = 0;
  std::vector<IndexEntry> certificates;
  std::vector<IndexToken> tokens;

  IndexToken* token_of(const std::string& name);
  /// The newest certificate of a name, or null.
  const IndexEntry* newest(const std::string& name) const;
  /// Each name once, sorted.
  std::vector<std::string> names() const;
};

/// Throws ConfigError when it is missing or damaged.
Index read_index(const std::filesystem::path& folder);
void write_index(const std::filesystem::path& folder, const Index& index);

/// Exclusive while it lives, between processes and between threads. Waits for its turn.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int fd_;
};

/// Each host once; throws ConfigError for one that is neither DNS name nor IP address.
std::vector<std::string> checked_hosts(std::span<const std::string> hosts);

/// Seconds since 1970.
std::int64_t unix_now();

}  // namespace fl::pki
