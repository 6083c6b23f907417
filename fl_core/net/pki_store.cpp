#include "fl_core/net/pki_store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"

namespace fl::pki {
namespace {

using nlohmann::json;

constexpr int kIndexVersion = 1;
/// About half a million certificates.
constexpr std::uint64_t kIndexLimitBytes = 256U << 20U;

CertificateRole role_from(const std::string& text) {
  if (text == role_name(CertificateRole::server)) return CertificateRole::server;
  if (text == role_name(CertificateRole::client)) return CertificateRole::client;
  throw ConfigError("role '" + text + "'");
}

json entry_to_json(const IndexEntry& entry) {
  return {{"name", entry.name},
          {"role", role_name(entry.role)},
          {"serial", entry.serial},
          {"not_before", entry.not_before},
          {"not_after", entry.not_after},
          {"hosts", entry.hosts},
          {"public_key", entry.public_key},
          {"revoked", entry.revoked_at == 0 ? json(nullptr) : json(entry.revoked_at)}};
}

IndexEntry entry_from_json(const json& value) {
  IndexEntry entry;
  value.at("name").get_to(entry.name);
  check_identity_name(entry.name, "name");
  entry.role = role_from(value.at("role").get<std::string>());
  value.at("serial").get_to(entry.serial);
  value.at("not_before").get_to(entry.not_before);
  value.at("not_after").get_to(entry.not_after);
  value.at("hosts").get_to(entry.hosts);
  value.at("public_key").get_to(entry.public_key);
  if (!value.at("revoked").is_null()) value.at("revoked").get_to(entry.revoked_at);
  return entry;
}

json token_to_json(const IndexToken& token) {
  return {{"name", token.name}, {"token", token.token}, {"expires", token.expires}, {"used", token.used_at}};
}

IndexToken token_from_json(const json& value) {
  return {value.at("name").get<std::string>(), value.at("token").get<std::string>(), value.at("expires").get<std::int64_t>(),
          value.at("used").get<std::int64_t>()};
}

Index index_from_json(const json& document) {
  if (document.at("version") != kIndexVersion) throw ConfigError("version " + shown(document.at("version")));
  Index index;
  document.at("crl_number").get_to(index.crl_number);
  for (const json& value : document.at("certificates")) index.certificates.push_back(entry_from_json(value));
  for (const json& value : document.at("tokens")) index.tokens.push_back(token_from_json(value));
  return index;
}

}  // namespace

IndexToken* Index::token_of(const std::string& name) {
  const auto found = std::find_if(tokens.begin(), tokens.end(), [&](const IndexToken& one) { return one.name == name; });
  return found == tokens.end() ? nullptr : &*found;
}

const IndexEntry* Index::newest(const std::string& name) const {
  const auto found =
      std::find_if(certificates.rbegin(), certificates.rend(), [&](const IndexEntry& one) { return one.name == name; });
  return found == certificates.rend() ? nullptr : &*found;
}

std::vector<std::string> Index::names() const {
  std::set<std::string> sorted;
  for (const IndexEntry& entry : certificates) sorted.insert(entry.name);
  return {sorted.begin(), sorted.end()};
}

Index read_index(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "index.json";
  const std::string text = read_text_file(path, kIndexLimitBytes);
  std::string reason;
  try {
    return index_from_json(parse_json(text, path.string()));
  } catch (const json::exception& error) {
    // Without "[json.exception.out_of_range.403] ".
    reason = error.what();
    if (const auto end = reason.find("] "); end != std::string::npos) reason = reason.substr(end + 2);
  } catch (const ConfigError& error) {
    reason = error.what();
  }
  throw ConfigError(path.string() + ": is no index of an authority (" + reason + "); restore it from a backup");
}

void write_index(const std::filesystem::path& folder, const Index& index) {
  json document = {{"version", kIndexVersion},
                   {"crl_number", index.crl_number},
                   {"certificates", json::array()},
                   {"tokens", json::array()}};
  for (const IndexEntry& entry : index.certificates) document["certificates"].push_back(entry_to_json(entry));
  for (const IndexToken& token : index.tokens) document["tokens"].push_back(token_to_json(token));
  write_file_atomically(folder / "index.json", document.dump(1) + "\n", FileAccess::owner);
}

FolderLock::FolderLock(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / ".lock";
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd_ < 0) fail_writing("open", path, errno);
  int result = 0;
  do {
    result = ::flock(fd_, LOCK_EX);
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    const int error = errno;
    ::close(fd_);
    fail_writing("lock", path, error);
  }
}

FolderLock::~FolderLock() { ::close(fd_); }

std::int64_t unix_now() {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace fl::pki
