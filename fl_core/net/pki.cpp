#include "fl_core/net/pki.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/net/pki_store.h"
#include "fl_core/net/pki_x509.h"
#include "fl_core/net/random.h"

namespace fl {
namespace {

using pki::Index;
using pki::IndexEntry;
using pki::IndexToken;
using pki::Signer;

constexpr std::size_t kTokenBytes = 16;
constexpr std::int64_t kMostSeconds = 100 * 366 * kSecondsPerDay;

std::string upper_case(std::string text) {
  for (char& c : text) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return text;
}

/// How a command is to be called so that it works on this authority.
std::string fl_pki(const std::string& command, const std::filesystem::path& folder) {
  return "'fl pki " + command + (folder == "pki" ? "" : " --pki " + folder.string()) + "'";
}

std::filesystem::path issued_folder(const std::filesystem::path& folder, const std::string& name) { return folder / "issued" / name; }

Signer load_signer(const std::filesystem::path& folder) {
  Signer signer{pki::load_certificate(folder / "ca.pem"), pki::read_private_key(folder / "ca.key")};
  const bool fits = X509_check_private_key(signer.certificate.get(), signer.key.get()) == 1;
  pki::clear_errors();
  if (!fits) {
    throw ConfigError((folder / "ca.key").string() + ": is not the key of ca.pem beside it; restore both from the same backup");
  }
  return signer;
}

/// Writes the list that the index describes.
void write_revocation_list(const std::filesystem::path& folder, const Index& index, const Signer& signer) {
  std::vector<std::pair<std::string, std::int64_t>> revoked;
  for (const IndexEntry& entry : index.certificates) {
    if (entry.revoked_at != 0) revoked.emplace_back(entry.serial, entry.revoked_at);
  }
  const std::int64_t now = pki::unix_now();
  const auto list = pki::make_revocation_list(signer, index.crl_number, now - kClockSkew_s, now + kAuthorityLifetimeDays * kSecondsPerDay, revoked);
  write_file_atomically(folder / "crl.pem", pki::to_pem(list.get()));
}

/// One change of an authority: locked, read, and with what an interrupted revocation left undone done.
struct Change {
  explicit Change(const std::filesystem::path& where) : folder(where), lock(where), index(pki::read_index(where)), signer(load_signer(where)) {
    std::int64_t written = -1;
    try {
      written = crl_number(folder / "crl.pem");
    } catch (const ConfigError&) {
      // Missing or damaged: it is made again from the index.
    }
    if (written > index.crl_number) {
      throw ConfigError((folder / "crl.pem").string() + ": has number " + std::to_string(written) + ", but index.json knows only " +
                        std::to_string(index.crl_number) + ", so it is an older copy; restore the newest backup of index.json");
    }
    if (written < index.crl_number) write_revocation_list(folder, index, signer);
  }

  std::filesystem::path folder;
  pki::FolderLock lock;
  Index index;
  Signer signer;
  std::int64_t now = pki::unix_now();
};

/// The nearest name, or all when there are few.
std::string names_hint(const std::string& name, const Change& change) {
  constexpr std::size_t kFew = 10;
  const std::vector<std::string> names = change.index.names();
  const std::string hint = nearest_hint(name, names);
  return names.size() <= kFew || hint.starts_with("; did you mean") ? hint : "; " + fl_pki("list", change.folder) + " shows all";
}

/// What a new certificate of `name` needs: the name is not taken, or (`moves_to_ed25519`) only by certificates for keys of another
/// type, which may stay valid beside the new one until the device has it.
void check_free(const Change& change, const std::string& name, CertificateRole role, bool moves_to_ed25519 = false) {
  const IndexEntry* newest = change.index.newest(name);
  if (newest == nullptr) return;
  if (newest->role != role) {
    throw ConfigError("'" + name + "' is a " + role_name(newest->role) + " of this authority, expected a " + role_name(role) +
                      "; choose another name");
  }
  for (const IndexEntry& entry : change.index.certificates) {
    if (entry.name != name || !entry.live(change.now)) continue;
    if (moves_to_ed25519 && pki::key_type(entry.public_key) != KeyType::ed25519) continue;
    throw ConfigError("'" + name + "' already has a valid certificate; " + fl_pki("renew " + name, change.folder) +
                      " makes the next one, after " + fl_pki("revoke " + name, change.folder) + " a new key can be issued");
  }
}

void check_validity(const std::string& name, ValidityOptions validity) {
  const auto sane = [](std::int64_t seconds) { return seconds > -kMostSeconds && seconds < kMostSeconds; };
  if (sane(validity.lifetime_s) && sane(validity.not_before_offset_s) && validity.not_before_offset_s < validity.lifetime_s) return;
  throw ConfigError("validity of '" + name + "': from " + std::to_string(validity.not_before_offset_s) + " s to " +
                    std::to_string(validity.lifetime_s) + " s from now, expected an end after the beginning, within 100 years");
}

/// The entry of a certificate that is about to be made, its validity checked against the authority's.
IndexEntry new_entry(const Change& change, const std::string& name, CertificateRole role, ValidityOptions validity) {
  check_validity(name, validity);
  IndexEntry entry;
  entry.name = name;
  entry.role = role;
  entry.serial = pki::make_serial();
  entry.not_before = change.now + validity.not_before_offset_s;
  entry.not_after = change.now + validity.lifetime_s;
  const std::int64_t last = pki::describe(change.signer.certificate.get(), (change.folder / "ca.pem").string()).not_after;
  if (entry.not_after > last) {
    throw ConfigError("validity of '" + name + "': would outlive the authority, which has " + std::to_string(days_left(last)) +
                      " days left; ask for fewer --days, or make a new authority with 'fl pki init'");
  }
  return entry;
}

pki::Certificate sign(const Change& change, const IndexEntry& entry, EVP_PKEY* key) {
  return pki::make_certificate({entry.name, entry.role, entry.serial, entry.not_before, entry.not_after, entry.hosts}, key, &change.signer);
}

IssuedFiles write_certificate(const Change& change, X509* certificate) {
  IssuedFiles files;
  files.info = pki::describe(certificate, "new certificate");
  const std::filesystem::path folder = issued_folder(change.folder, files.info.name);
  files.certificate = folder / "cert.pem";
  write_file_atomically(files.certificate, pki::to_pem(certificate));
  std::error_code ignored;
  if (std::filesystem::exists(folder / "key.pem", ignored)) files.key = folder / "key.pem";
  return files;
}

/// Nobody may enrol any more with a token that `name` did not use.
void withdraw_token(Index& index, const std::string& name) {
  std::erase_if(index.tokens, [&](const IndexToken& one) { return one.name == name && one.used_at == 0; });
}

/// Makes the key of an entry, on disk, and its certificate, not yet on disk; the entry goes into the index, not yet on disk.
pki::Certificate certify_new_key(Change& change, IndexEntry entry) {
  const pki::Key key = pki::make_key(entry.role == CertificateRole::client ? KeyType::ed25519 : KeyType::p256);
  entry.public_key = pki::public_key_hex(key.get());
  pki::Certificate certificate = sign(change, entry, key.get());
  const std::filesystem::path folder = issued_folder(change.folder, entry.name);
  make_folder(folder);
  pki::write_private_key(folder / "key.pem", key.get());
  withdraw_token(change.index, entry.name);
  change.index.certificates.push_back(std::move(entry));
  return certificate;
}

/// Keys first, then the index in one step, then certificates: whatever instant a crash picks, no certificate is unknown.
std::vector<IssuedFiles> issue(Change& change, std::vector<IndexEntry> entries) {
  std::vector<pki::Certificate> certificates;
  for (IndexEntry& entry : entries) certificates.push_back(certify_new_key(change, std::move(entry)));
  pki::write_index(change.folder, change.index);
  std::vector<IssuedFiles> files;
  for (const pki::Certificate& certificate : certificates) {
    files.push_back(write_certificate(change, certificate.get()));
    files.back().new_key = true;
  }
  return files;
}

/// Throws unless the request's key was vouched for with the name's token and may be used.
void check_request(Change& change, const std::string& name, const pki::RequestContents& request, const std::string& file) {
  const std::string again = fl_pki("token " + name, change.folder) + " makes a new one for 'fl pki request' on the device";
  const IndexToken* token = change.index.token_of(name);
  if (token == nullptr) throw ConfigError(file + ": there is no token for '" + name + "'; " + again);
  if (token->used_at != 0) throw ConfigError(file + ": the token of '" + name + "' was used already, each counts once; " + again);
  if (token->expires <= change.now) throw ConfigError(file + ": the token of '" + name + "' has expired; " + again);
  if (request.proof.empty()) {
    throw ConfigError(file + ": carries no proof of a token; make it on the device with 'fl pki request " + name + " --token TOKEN'");
  }
  if (!pki::same_secret(request.proof, pki::proof_of(token->token, request.public_key))) {
    throw ConfigError(file + ": was not made with the last token of '" + name + "', or its key was exchanged on the way; nothing was issued: repeat "
                      "'fl pki request' on the device with the right token");
  }
  for (const IndexEntry& entry : change.index.certificates) {
    if (entry.public_key != request.public_key) continue;
    if (entry.name != name || entry.revoked_at != 0) {
      throw ConfigError(file + ": asks for a key that " + (entry.name == name ? "was revoked" : "belongs to '" + entry.name + "'") +
                        "; remove key.pem on the device and repeat 'fl pki request' there, so that it makes a new key");
    }
  }
}

}  // namespace

Authority Authority::create(const std::filesystem::path& folder, ValidityOptions validity) {
  make_folder(folder);
  const pki::FolderLock lock(folder);
  for (const char* part : {"index.json", "ca.key", "ca.pem", "crl.pem", "issued"}) {
    std::error_code ignored;  // what cannot be seen cannot be written either, and is reported then
    if (!std::filesystem::exists(std::filesystem::symlink_status(folder / part, ignored))) continue;
    throw ConfigError((folder / part).string() + " exists, and an authority is never overwritten; choose another folder, or, if an earlier " +
                      "init was interrupted and nothing was issued, remove this one");
  }
  const std::int64_t now = pki::unix_now();
  const std::string serial = pki::make_serial();
  // A name of its own, so that nobody mistakes one authority for another.
  const std::string name = "Tributary authority " + serial.substr(0, 8);
  check_validity(name, validity);
  pki::Key key = pki::make_key(KeyType::p256);
  pki::Certificate root = pki::make_certificate(
      {name, CertificateRole::authority, serial, now + validity.not_before_offset_s, now + validity.lifetime_s, {}}, key.get(), nullptr);
  pki::write_private_key(folder / "ca.key", key.get());
  write_file_atomically(folder / "ca.pem", pki::to_pem(root.get()));
  Index index;
  index.crl_number = 1;
  write_revocation_list(folder, index, {std::move(root), std::move(key)});
  pki::write_index(folder, index);
  return Authority(folder);
}

Authority::Authority(std::filesystem::path folder) : folder_(std::move(folder)) {
  for (const char* part : {"ca.pem", "index.json"}) {
    std::error_code ignored;  // what cannot be seen is reported by whoever reads it
    if (std::filesystem::status(folder_ / part, ignored).type() != std::filesystem::file_type::not_found) continue;
    throw ConfigError((folder_ / part).string() + ": no such file; expected an authority: 'fl pki init " + folder_.string() +
                      "' makes one, --pki DIR names another folder");
  }
}

IssuedFiles Authority::issue_server(const std::string& name, std::span<const std::string> hosts, ValidityOptions validity) {
  check_identity_name(name);
  std::vector<std::string> checked = pki::checked_hosts(hosts);
  Change change(folder_);
  check_free(change, name, CertificateRole::server);
  std::vector<IndexEntry> entries = {new_entry(change, name, CertificateRole::server, validity)};
  entries[0].hosts = std::move(checked);
  return issue(change, std::move(entries)).front();
}

IssuedFiles Authority::issue_client(const std::string& name, ValidityOptions validity) {
  return issue_clients(std::span(&name, 1), validity).front();
}

std::vector<IssuedFiles> Authority::issue_clients(std::span<const std::string> names, ValidityOptions validity) {
  std::set<std::string> seen;
  for (const std::string& name : names) {
    check_identity_name(name);
    if (!seen.insert(name).second) throw ConfigError("'" + name + "' is named twice; each client needs a name of its own");
  }
  Change change(folder_);
  std::vector<IndexEntry> entries;
  for (const std::string& name : names) {
    check_free(change, name, CertificateRole::client);
    entries.push_back(new_entry(change, name, CertificateRole::client, validity));
  }
  return issue(change, std::move(entries));
}

IssuedFiles Authority::issue_client_from_request(const std::string& name, const std::filesystem::path& request,
                                                 ValidityOptions validity) {
  check_identity_name(name);
  const pki::RequestContents contents = pki::load_request(request);
  if (contents.name != name) {
    throw ConfigError(request.string() + ": asks for the name '" + contents.name + "', expected '" + name +
                      "'; name the device that made it, or copy the right request");
  }
  Change change(folder_);
  check_free(change, name, CertificateRole::client, contents.key_type == KeyType::ed25519);
  check_request(change, name, contents, request.string());
  IndexEntry entry = new_entry(change, name, CertificateRole::client, validity);
  entry.public_key = contents.public_key;
  const pki::Certificate certificate = sign(change, entry, contents.key.get());
  const std::filesystem::path folder = issued_folder(folder_, name);
  make_folder(folder);
  // Left by an earlier certificate of this name whose key was made here: it does not fit the new one.
  std::error_code error;
  std::filesystem::remove(folder / "key.pem", error);
  if (error) fail_writing("remove", folder / "key.pem", error.value());
  IndexToken& token = *change.index.token_of(name);
  token.token.clear();
  token.used_at = change.now;
  change.index.certificates.push_back(std::move(entry));
  pki::write_index(folder_, change.index);
  return write_certificate(change, certificate.get());
}

std::string Authority::make_token(const std::string& name, std::int64_t valid_for_s) {
  check_identity_name(name);
  if (valid_for_s <= -kMostSeconds || valid_for_s >= kMostSeconds) {
    throw ConfigError("validity of the token: got " + std::to_string(valid_for_s) + " s, expected less than 100 years");
  }
  Change change(folder_);
  check_free(change, name, CertificateRole::client, true);
  const IndexToken token{name, random_hex(kTokenBytes), change.now + valid_for_s, 0};
  std::erase_if(change.index.tokens, [&](const IndexToken& one) { return one.name == name; });
  change.index.tokens.push_back(token);
  pki::write_index(folder_, change.index);
  return token.token;
}

IssuedFiles Authority::renew(const std::string& name, ValidityOptions validity) {
  check_identity_name(name);
  Change change(folder_);
  const IndexEntry* base = change.index.newest(name);
  if (base == nullptr) throw ConfigError("there is no certificate of '" + name + "'" + names_hint(name, change));
  for (const IndexEntry& entry : change.index.certificates) {
    if (entry.name == name && entry.live(change.now)) base = &entry;
  }
  if (base->revoked_at != 0) {
    const std::string issue_again = std::string("issue ") + role_name(base->role) + " " + name;
    throw ConfigError("'" + name + "' was revoked, so its key is not certified again; " + fl_pki(issue_again, folder_) + " makes a new one");
  }
  IndexEntry entry = new_entry(change, name, base->role, validity);
  entry.hosts = base->hosts;
  std::error_code ignored;  // a key that cannot be seen counts as the device's own
  if (entry.role == CertificateRole::client && pki::key_type(base->public_key) != KeyType::ed25519 &&
      std::filesystem::exists(issued_folder(folder_, name) / "key.pem", ignored)) {
    return issue(change, {entry}).front();
  }
  entry.public_key = base->public_key;
  const pki::Key key = pki::public_key_from_hex(entry.public_key, (folder_ / "index.json").string());
  const pki::Certificate certificate = sign(change, entry, key.get());
  make_folder(issued_folder(folder_, name));
  change.index.certificates.push_back(std::move(entry));
  pki::write_index(folder_, change.index);
  return write_certificate(change, certificate.get());
}

Revocation Authority::revoke(const std::string& name_or_serial) {
  Change change(folder_);
  Index& index = change.index;
  const std::string serial = upper_case(name_or_serial);
  const bool named = index.newest(name_or_serial) != nullptr;
  const auto meant = [&](const IndexEntry& entry) { return named ? entry.name == name_or_serial : entry.serial == serial; };
  if (std::none_of(index.certificates.begin(), index.certificates.end(), meant)) {
    throw ConfigError("there is no certificate of '" + name_or_serial + "', by name or by serial" + names_hint(name_or_serial, change));
  }
  Revocation revocation;
  for (IndexEntry& entry : index.certificates) {
    if (!meant(entry) || !entry.live(change.now)) continue;
    entry.revoked_at = change.now;
    revocation.serials.push_back(entry.serial);
  }
  if (revocation.serials.empty()) {
    throw ConfigError("'" + name_or_serial + "' has no valid certificate: all are revoked or have expired; " +
                      fl_pki("list", folder_) + " shows them");
  }
  revocation.crl_number = ++index.crl_number;
  revocation.list = revocation_list();
  // The index first: if the list is not written any more, the next change sees that its number is behind, and writes it.
  pki::write_index(folder_, index);
  write_revocation_list(folder_, index, change.signer);
  return revocation;
}

AuthorityListing Authority::list() const {
  using Status = IssuedCertificate::Status;
  const Index index = pki::read_index(folder_);
  const std::int64_t now = pki::unix_now();
  AuthorityListing listing;
  listing.authority = read_certificate(certificate());
  listing.crl_number = index.crl_number;
  std::map<std::string, const IndexEntry*> current;
  for (const IndexEntry& entry : index.certificates) {
    if (entry.live(now)) current[entry.name] = &entry;
  }
  for (const IndexEntry& entry : index.certificates) {
    Status status = Status::valid;
    if (entry.revoked_at != 0) status = Status::revoked;
    else if (!entry.live(now)) status = Status::expired;
    else if (current[entry.name] != &entry) status = Status::replaced;
    else if (days_left(entry.not_after, now) < kExpiryWarningDays) status = Status::expires_soon;
    listing.certificates.push_back(
        {entry.name, entry.role, pki::key_type(entry.public_key), entry.serial, entry.not_before, entry.not_after, entry.hosts, entry.revoked_at, status});
  }
  for (const IndexToken& token : index.tokens) {
    if (token.used_at == 0) listing.tokens.push_back({token.name, token.expires});
  }
  return listing;
}

RequestFiles make_request(const std::string& name, const std::string& token, const std::filesystem::path& folder) {
  check_identity_name(name);
  const bool digits = std::all_of(token.begin(), token.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (token.size() != 2 * kTokenBytes || !digits) {
    throw ConfigError("--token: is no token; expected the " + std::to_string(2 * kTokenBytes) + " digits that 'fl pki token " + name +
                      "' printed on the authority");
  }
  make_folder(folder);
  RequestFiles files{folder / "key.pem", folder / "request.pem", false};
  std::error_code ignored;  // a key that cannot be seen cannot be replaced either, and the writing says so
  files.key_was_there = std::filesystem::exists(files.key, ignored);
  const pki::Key key = files.key_was_there ? pki::read_private_key(files.key) : pki::make_key(KeyType::ed25519);
  if (pki::key_type(key.get()) != KeyType::ed25519) {
    throw ConfigError(files.key.string() + ": is no Ed25519 key, which devices have; choose another --output, so that a new key is made");
  }
  if (!files.key_was_there) pki::write_private_key(files.key, key.get());
  const auto request = pki::make_request(name, key.get(), pki::proof_of(token, pki::public_key_hex(key.get())));
  write_file_atomically(files.request, pki::to_pem(request.get()));
  return files;
}

}  // namespace fl
