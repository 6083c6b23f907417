#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace fl {

/// What a certificate is for. Each certificate of ours has exactly one role, and each name keeps its role for ever.
enum class CertificateRole : std::uint8_t { authority, server, client };
/// "authority", "server", "client".
const char* role_name(CertificateRole role);

/// What kind of key a certificate is for. Clients get Ed25519 keys, with which they also sign in secure aggregation; authorities
/// and servers get P-256 ones. A client may connect with either, or with an RSA key of another program.
enum class KeyType : std::uint8_t { ed25519, p256, other };
/// "Ed25519", "P-256", "other".
const char* key_type_name(KeyType type);

/// From this many days before its end on, a certificate should be renewed and `fl pki list` warns.
inline constexpr std::int64_t kExpiryWarningDays = 30;
inline constexpr std::int64_t kSecondsPerDay = 86'400;
/// Life of the root and of a revocation list.
inline constexpr std::int64_t kAuthorityLifetimeDays = 3650;
inline constexpr std::int64_t kCertificateLifetimeDays = 365;
/// Certificates and lists are dated back by this, for devices whose clock is behind.
inline constexpr std::int64_t kClockSkew_s = 3600;

/// When a certificate begins and ends, both in seconds from now. Negative values are allowed, so that tests can make
/// certificates that have expired.
struct ValidityOptions {
  std::int64_t not_before_offset_s = -kClockSkew_s;
  std::int64_t lifetime_s = kCertificateLifetimeDays * kSecondsPerDay;
};

struct CertificateInfo {
  std::string name;  ///< the common name
  CertificateRole role = CertificateRole::client;
  KeyType key_type = KeyType::other;
  std::string serial;              ///< upper-case hexadecimal
  std::string fingerprint;         ///< SHA-256 of the DER certificate, 64 lower-case hexadecimal digits
  std::int64_t not_before = 0;     ///< seconds since 1970
  std::int64_t not_after = 0;      ///< seconds since 1970
  std::vector<std::string> hosts;  ///< DNS names and IP addresses of a server, in the certificate's order
};

/// Reads the first certificate of a PEM file; its signature is not checked. Throws ConfigError when there is no such file,
/// when it holds none, or when its role is not exactly one of ours; IoError when the system refuses to read it.
CertificateInfo read_certificate(const std::filesystem::path& path);
/// The number (CRLNumber) of a revocation list in PEM; its signature is not checked. Errors as for read_certificate.
std::int64_t crl_number(const std::filesystem::path& path);
/// Whole days from `now` until `not_after`, rounded down: 0 on the last day, negative when expired.
std::int64_t days_left(std::int64_t not_after, std::int64_t now);
/// The same from the system's clock.
std::int64_t days_left(std::int64_t not_after);

/// Names of servers and clients: 1 to 64 letters, digits, '-', '_' and '.', the first one a letter or digit. So a name is safe
/// as the name of a folder. Throws ConfigError that begins with `source`.
void check_identity_name(const std::string& name, const std::string& source = "NAME");

/// A certificate as the authority's index lists it.
struct IssuedCertificate {
  enum class Status : std::uint8_t {
    valid,
    expires_soon,  ///< fewer than kExpiryWarningDays left, and no newer certificate of the same name
    replaced,      ///< still valid, but renewed
    expired,
    revoked,
  };
  std::string name;
  CertificateRole role = CertificateRole::client;
  KeyType key_type = KeyType::other;
  std::string serial;
  std::int64_t not_before = 0;
  std::int64_t not_after = 0;
  std::vector<std::string> hosts;
  std::int64_t revoked_at = 0;  ///< seconds since 1970; 0: not revoked
  Status status = Status::valid;
};
/// "valid", "expires soon", "replaced", "expired", "revoked".
const char* status_name(IssuedCertificate::Status status);

/// A token that was handed out and not used yet; `expires` in seconds since 1970, perhaps past.
struct PendingToken {
  std::string name;
  std::int64_t expires = 0;
};

/// All that an authority knows, in the order of issue.
struct AuthorityListing {
  CertificateInfo authority;
  std::int64_t crl_number = 0;
  std::vector<IssuedCertificate> certificates;
  std::vector<PendingToken> tokens;
};

struct IssuedFiles {
  CertificateInfo info;
  std::filesystem::path certificate;
  std::filesystem::path key;  ///< empty when the authority never had it
  bool new_key = false;       ///< whether `key` was made for this certificate
};

struct Revocation {
  std::vector<std::string> serials;
  std::int64_t crl_number = 0;
  std::filesystem::path list;
};

/// A certificate authority in a folder: ca.pem (root), ca.key, crl.pem (revocation list), index.json (what was issued, and
/// pending tokens) and issued/NAME/{cert.pem, key.pem}. Its own key and those of servers are EC P-256, those of clients Ed25519;
/// signatures are ECDSA with SHA-256, and certificates pass OpenSSL's strict checks (X509_V_FLAG_X509_STRICT) with the
/// revocation list.
///
/// Private keys and the index have mode 0600 from the first instant. Every change holds a lock on the folder, so several
/// processes may share it, and is one atomic replacement of index.json: a certificate that exists is in the index, and an interrupted
/// revocation is completed by the next change. Everything blocks on the disk. Throws ConfigError for what does not fit (and
/// changes nothing) and IoError when the system refuses; both say what to do.
class Authority {
 public:
  /// Makes a new authority. Refuses a folder that already holds a part of one.
  static Authority create(const std::filesystem::path& folder,
                          ValidityOptions validity = {-kClockSkew_s, kAuthorityLifetimeDays * kSecondsPerDay});
  /// Opens an existing one.
  explicit Authority(std::filesystem::path folder);

  /// Hosts are DNS names or IP addresses by which clients reach the server, 1 to 64 of them. Refused while the name has a valid
  /// certificate.
  IssuedFiles issue_server(const std::string& name, std::span<const std::string> hosts, ValidityOptions validity = {});
  /// Makes key and certificate here.
  IssuedFiles issue_client(const std::string& name, ValidityOptions validity = {});
  /// The same for many names at the cost of one: all are checked first, then all are issued.
  std::vector<IssuedFiles> issue_clients(std::span<const std::string> names, ValidityOptions validity = {});
  /// From what make_request() wrote on the device. The request must be signed with its own key, Ed25519 or P-256, and carry the
  /// HMAC of that key under the name's token, which is used up by this. Nothing in it but the key reaches the certificate. A name
  /// that has valid certificates for P-256 keys only may get one for an Ed25519 key beside them.
  IssuedFiles issue_client_from_request(const std::string& name, const std::filesystem::path& request,
                                        ValidityOptions validity = {});

  /// A new one-time token of 128 random bits, 32 hexadecimal digits, with which the device `name` may ask for its first
  /// certificate, or for its first one with an Ed25519 key. It replaces an earlier token of this name.
  std::string make_token(const std::string& name, std::int64_t valid_for_s);

  /// A new certificate for the same name and hosts, written over issued/NAME/cert.pem. The old one stays valid until it expires
  /// or is revoked. The key stays the same, with one exception: a client's P-256 key that was made here (issued/NAME/key.pem) gives
  /// way to a new Ed25519 one, as new_key says. A P-256 key that only the device has is certified again.
  IssuedFiles renew(const std::string& name, ValidityOptions validity = {});

  /// Revokes every valid certificate of a name, or the one with this serial, and writes the next revocation list.
  Revocation revoke(const std::string& name_or_serial);

  AuthorityListing list() const;

  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path certificate() const { return folder_ / "ca.pem"; }
  std::filesystem::path revocation_list() const { return folder_ / "crl.pem"; }

 private:
  std::filesystem::path folder_;
};

struct RequestFiles {
  std::filesystem::path key;
  std::filesystem::path request;
  bool key_was_there = false;  ///< an earlier request's key was used again
};
/// On the device: makes key.pem (mode 0600, never leaves the device) and request.pem, a signing request for `name` that carries
/// HMAC-SHA256(token, public key) in its challenge password, in `folder`. The key is Ed25519. An existing key.pem is kept and used;
/// ConfigError when it is of another type.
RequestFiles make_request(const std::string& name, const std::string& token, const std::filesystem::path& folder);

}  // namespace fl
