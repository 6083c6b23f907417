#include <arpa/inet.h>

#include <algorithm>
#include <array>

#include "fl_core/base/error.h"
#include "fl_core/net/pki.h"
#include "fl_core/net/pki_store.h"

namespace fl {
namespace {

constexpr std::size_t kNameLetters = 64;  // also the limit of X.509 for a common name
constexpr std::size_t kHostLetters = 253;
constexpr std::size_t kLabelLetters = 63;
constexpr std::size_t kHosts = 64;

bool letter_or_digit(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); }

bool is_address(const std::string& host) {
  std::array<unsigned char, 16> bytes{};
  return ::inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 || ::inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

bool is_host_name(const std::string& host) {
  if (host.empty() || host.size() > kHostLetters) return false;
  std::size_t start = 0;
  bool only_digits = true;  // of the last label: then it is a misspelt address
  while (start <= host.size()) {
    const std::size_t end = std::min(host.find('.', start), host.size());
    if (end == start || end - start > kLabelLetters || host[start] == '-' || host[end - 1] == '-') return false;
    only_digits = true;
    for (std::size_t i = start; i < end; ++i) {
      if (!letter_or_digit(host[i]) && host[i] != '-' && host[i] != '_') return false;
      only_digits = only_digits && host[i] >= '0' && host[i] <= '9';
    }
    start = end + 1;
  }
  return !only_digits;
}

}  // namespace

void check_identity_name(const std::string& name, const std::string& source) {
  const bool letters = std::all_of(name.begin(), name.end(), [](char c) { return letter_or_digit(c) || c == '-' || c == '_' || c == '.'; });
  if (!name.empty() && name.size() <= kNameLetters && letters && letter_or_digit(name[0])) return;
  // The name may come from a stranger's request.
  std::string printed = name.substr(0, kNameLetters);
  std::replace_if(printed.begin(), printed.end(), [](char c) { return c < ' ' || c > '~'; }, '?');
  throw ConfigError(source + ": got '" + printed + (name.size() > kNameLetters ? "…" : "") +
                    "', expected 1 to 64 letters, digits, '-', '_' or '.', beginning with a letter or digit");
}

const char* role_name(CertificateRole role) {
  switch (role) {
    case CertificateRole::authority: return "authority";
    case CertificateRole::server: return "server";
    case CertificateRole::client: return "client";
  }
  return "?";
}

const char* key_type_name(KeyType type) {
  switch (type) {
    case KeyType::ed25519: return "Ed25519";
    case KeyType::p256: return "P-256";
    case KeyType::other: return "other";
  }
  return "?";
}

const char* status_name(IssuedCertificate::Status status) {
  switch (status) {
    case IssuedCertificate::Status::valid: return "valid";
    case IssuedCertificate::Status::expires_soon: return "expires soon";
    case IssuedCertificate::Status::replaced: return "replaced";
    case IssuedCertificate::Status::expired: return "expired";
    case IssuedCertificate::Status::revoked: return "revoked";
  }
  return "?";
}

std::int64_t days_left(std::int64_t not_after, std::int64_t now) {
  const std::int64_t seconds = not_after - now;
  return seconds >= 0 ? seconds / kSecondsPerDay : -((-seconds + kSecondsPerDay - 1) / kSecondsPerDay);
}

std::int64_t days_left(std::int64_t not_after) { return days_left(not_after, pki::unix_now()); }

namespace pki {

std::vector<std::string> checked_hosts(std::span<const std::string> hosts) {
  std::vector<std::string> checked;
  for (const std::string& host : hosts) {
    if (!is_address(host) && !is_host_name(host)) {
      throw ConfigError("--host: got '" + host + "', expected a DNS name or an IP address, such as fl.example.org or 10.0.0.5, without a port");
    }
    if (std::find(checked.begin(), checked.end(), host) == checked.end()) checked.push_back(host);
  }
  if (checked.empty() || checked.size() > kHosts) {
    throw ConfigError("--host: got " + std::to_string(checked.size()) + " hosts, expected 1 to " + std::to_string(kHosts) +
                      ", every DNS name or IP address by which clients reach the server");
  }
  return checked;
}

}  // namespace pki
}  // namespace fl
