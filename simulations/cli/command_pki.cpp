#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>

#include "fl_core/net/pki.h"
#include "simulations/cli/command.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

constexpr std::int64_t kSecondsPerHour = 3600;

struct PkiArguments {
  std::string folder = "pki";
  std::string name;
  std::vector<std::string> hosts;
  std::string request;
  std::string token;
  std::string output;
  std::int64_t days = kCertificateLifetimeDays;
  std::int64_t valid_hours = 24;
  bool json = false;

  ValidityOptions validity() const { return {-kClockSkew_s, days * kSecondsPerDay}; }
};
using Arguments = std::shared_ptr<PkiArguments>;

/// "key     value" lines, aligned as in the other commands.
void say(const char* what, const std::string& text) { std::printf("%-12s%s\n", what, text.c_str()); }

std::string joined(const std::vector<std::string>& parts, const char* between) {
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : between) + part;
  return all;
}

std::string days_text(std::int64_t not_after) {
  const std::int64_t days = days_left(not_after);
  return std::to_string(days) + (days == 1 || days == -1 ? " day" : " days");
}

/// What a person has to carry where, so that a program can use the certificate.
std::string files_to_copy(const Authority& authority, const IssuedFiles& files) {
  std::vector<std::string> paths = {files.certificate};
  if (!files.key.empty()) paths.push_back(files.key);
  paths.push_back(authority.certificate());
  paths.push_back(authority.revocation_list());
  return joined(paths, " ");
}

ExitCode show_issued(const char* what, const Authority& authority, const IssuedFiles& files) {
  const bool server = files.info.role == CertificateRole::server;
  say(what, std::string(role_name(files.info.role)) + " '" + files.info.name + "'" +
                (server ? " for " + joined(files.info.hosts, ", ") : "") + ", " + days_text(files.info.not_after));
  say("serial", files.info.serial);
  say("certificate", files.certificate);
  if (!files.key.empty()) say("key", files.key.string() + "  (keep it secret)");
  say("next", std::string("copy to the ") + (server ? "server" : "device") + ": " + files_to_copy(authority, files));
  return ExitCode::ok;
}

ExitCode renew(const PkiArguments& arguments) {
  Authority authority(arguments.folder);
  const IssuedFiles files = authority.renew(arguments.name, arguments.validity());
  say("renewed", std::string(role_name(files.info.role)) + " '" + files.info.name + "', " + days_text(files.info.not_after));
  say("serial", files.info.serial);
  say("certificate", files.certificate);
  if (files.new_key) say("key", files.key.string() + "  (new, Ed25519 instead of P-256; keep it secret)");
  say("next", files.new_key ? "copy both over cert.pem and key.pem there; the root stays, and the old pair is valid until it expires"
                            : "copy it over the cert.pem there; key and root stay, and the old certificate is valid until it expires");
  if (files.info.role == CertificateRole::client && files.info.key_type != KeyType::ed25519) {
    const std::string where = arguments.folder == "pki" ? "" : " --pki " + arguments.folder;
    say("!!", "the key is no Ed25519 key, which secure aggregation needs, and only the device has it. To change it: 'fl pki token " + files.info.name + where +
                  "' here, then 'fl pki request " + files.info.name + " --token - --output DIR' with a new folder on the device");
  }
  return ExitCode::ok;
}

ExitCode init(const PkiArguments& arguments) {
  const Authority authority = Authority::create(arguments.folder, {-kClockSkew_s, arguments.days * kSecondsPerDay});
  const CertificateInfo info = read_certificate(authority.certificate());
  const std::string where = arguments.folder == "pki" ? "" : " --pki " + arguments.folder;
  say("authority", info.name + ", " + days_text(info.not_after));
  say("root", authority.certificate().string() + "  (goes to every server and device)");
  say("key", (authority.folder() / "ca.key").string() + "  (whoever has it can let anybody in: keep it off the servers, and a copy in a safe)");
  say("revocations", authority.revocation_list().string() + "  (goes to every server)");
  say("next", "'fl pki issue server NAME --host HOST" + where + "', then 'fl pki issue client NAME" + where + "' for each device");
  return ExitCode::ok;
}

ExitCode issue_client(const PkiArguments& arguments) {
  Authority authority(arguments.folder);
  return show_issued("issued", authority,
                     arguments.request.empty() ? authority.issue_client(arguments.name, arguments.validity())
                                               : authority.issue_client_from_request(arguments.name, arguments.request, arguments.validity()));
}

ExitCode token(const PkiArguments& arguments) {
  Authority authority(arguments.folder);
  const std::string made = authority.make_token(arguments.name, arguments.valid_hours * kSecondsPerHour);
  say("token", made);
  say("for", "client '" + arguments.name + "', once, within " + std::to_string(arguments.valid_hours) + " hours; keep it secret until then");
  say("next", "on the device: 'fl pki request " + arguments.name + " --token - --output DIR', which asks for the token");
  return ExitCode::ok;
}

ExitCode request(const PkiArguments& arguments) {
  std::string secret = arguments.token;
  if (secret == "-") {
    if (::isatty(STDIN_FILENO) == 1) std::fprintf(stderr, "token: ");
    std::getline(std::cin, secret);
    const auto end = secret.find_last_not_of(" \t\r");
    secret.resize(end == std::string::npos ? 0 : end + 1);
  }
  const RequestFiles files = make_request(arguments.name, secret, arguments.output);
  say("key", files.key.string() + (files.key_was_there ? "  (was there, used again; never leaves this device)" : "  (never leaves this device)"));
  say("request", files.request);
  say("next", "copy the request to the authority: 'fl pki issue client " + arguments.name + " --request request.pem'");
  return ExitCode::ok;
}

ExitCode revoke(const PkiArguments& arguments) {
  Authority authority(arguments.folder);
  const Revocation revocation = authority.revoke(arguments.name);
  say("revoked", joined(revocation.serials, ", "));
  say("revocations", revocation.list.string() + ", number " + std::to_string(revocation.crl_number));
  say("next", "copy " + revocation.list.string() + " to every server");
  return ExitCode::ok;
}

/// What a person should do soon.
std::vector<std::string> warnings(const AuthorityListing& listing, const std::string& folder) {
  const std::string where = folder == "pki" ? "" : " --pki " + folder;
  std::vector<std::string> all;
  if (days_left(listing.authority.not_after) < kExpiryWarningDays) {
    all.push_back("the authority itself has " + days_text(listing.authority.not_after) + " left: make a new one with 'fl pki init DIR'");
  }
  for (const IssuedCertificate& one : listing.certificates) {
    if (one.status != IssuedCertificate::Status::expires_soon) continue;
    all.push_back(std::string(role_name(one.role)) + " '" + one.name + "' has " + days_text(one.not_after) + " left: 'fl pki renew " +
                  one.name + where + "'");
  }
  return all;
}

nlohmann::json as_json(const AuthorityListing& listing, const std::string& folder) {
  nlohmann::json certificates = nlohmann::json::array();
  for (const IssuedCertificate& one : listing.certificates) {
    certificates.push_back({{"name", one.name},
                            {"role", role_name(one.role)},
                            {"key", key_type_name(one.key_type)},
                            {"serial", one.serial},
                            {"not_before", one.not_before},
                            {"not_after", one.not_after},
                            {"days_left", days_left(one.not_after)},
                            {"hosts", one.hosts},
                            {"revoked", one.revoked_at == 0 ? nlohmann::json(nullptr) : nlohmann::json(one.revoked_at)},
                            {"status", status_name(one.status)}});
  }
  nlohmann::json tokens = nlohmann::json::array();
  for (const PendingToken& one : listing.tokens) tokens.push_back({{"name", one.name}, {"expires", one.expires}});
  return {{"authority",
           {{"name", listing.authority.name},
            {"serial", listing.authority.serial},
            {"fingerprint", listing.authority.fingerprint},
            {"not_after", listing.authority.not_after},
            {"days_left", days_left(listing.authority.not_after)}}},
          {"crl_number", listing.crl_number},
          {"certificates", certificates},
          {"tokens", tokens},
          {"warnings", warnings(listing, folder)}};
}

ExitCode list(const PkiArguments& arguments) {
  const Authority authority(arguments.folder);
  const AuthorityListing listing = authority.list();
  if (arguments.json) {
    std::printf("%s\n", as_json(listing, arguments.folder).dump().c_str());
    return ExitCode::ok;
  }
  std::vector<std::vector<std::string>> rows = {{"name", "role", "key", "days left", "status", "serial"}};
  for (const IssuedCertificate& one : listing.certificates) {
    rows.push_back({one.name, role_name(one.role), key_type_name(one.key_type), std::to_string(days_left(one.not_after)), status_name(one.status), one.serial});
  }
  if (rows.size() > 1) std::printf("%s\n", table(rows).c_str());
  say("authority", listing.authority.name + ", " + days_text(listing.authority.not_after) + " left");
  say("revocations", authority.revocation_list().string() + ", number " + std::to_string(listing.crl_number));
  std::vector<std::string> waiting;
  for (const PendingToken& one : listing.tokens) {
    waiting.push_back("'" + one.name + "'" + (days_left(one.expires) < 0 ? " (expired)" : ""));
  }
  if (!waiting.empty()) say("tokens", "not used yet: " + joined(waiting, ", "));
  for (const std::string& warning : warnings(listing, arguments.folder)) say("!!", warning);
  return ExitCode::ok;
}

void add_folder(CLI::App& command, const Arguments& arguments) {
  command.add_option("--pki", arguments->folder, "Folder of the authority")->type_name("DIR")->capture_default_str();
}

void add_days(CLI::App& command, const Arguments& arguments) {
  command.add_option("--days", arguments->days, "Life of the certificate")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, kAuthorityLifetimeDays))
      ->capture_default_str();
}

Arguments add_command(CLI::App& parent, const char* name, const char* about, Action& action, ExitCode (*run)(const PkiArguments&),
                      CLI::App** made) {
  auto arguments = std::make_shared<PkiArguments>();
  *made = parent.add_subcommand(name, about);
  (*made)->callback([arguments, run, &action] { action = [arguments, run] { return run(*arguments); }; });
  return arguments;
}

void add_issue(CLI::App& pki, Action& action) {
  auto* issue = pki.add_subcommand("issue", "Make a certificate for a server or a client");
  issue->require_subcommand(1);
  CLI::App* command = nullptr;
  auto server = add_command(*issue, "server", "Key and certificate of an aggregator", action, [](const PkiArguments& a) {
    Authority authority(a.folder);
    return show_issued("issued", authority, authority.issue_server(a.name, a.hosts, a.validity()));
  }, &command);
  command->add_option("NAME", server->name, "Name of the server")->required();
  command->add_option("--host", server->hosts, "DNS name or IP address by which clients reach it; any number of times")
      ->required()
      ->type_name("HOST")
      ->allow_extra_args(false);
  add_days(*command, server);
  add_folder(*command, server);
  auto client = add_command(*issue, "client", "Certificate of a device, with a key made here or from its request", action, issue_client, &command);
  command->add_option("NAME", client->name, "Name of the client")->required();
  command->add_option("--request", client->request, "The request.pem of 'fl pki request': the key stays on the device")->type_name("FILE");
  add_days(*command, client);
  add_folder(*command, client);
}

void add_device_commands(CLI::App& pki, Action& action) {
  CLI::App* command = nullptr;
  auto one = add_command(pki, "token", "A one-time token, with which a device may ask for its certificate", action, token, &command);
  command->add_option("NAME", one->name, "Name of the client")->required();
  command->add_option("--valid-hours", one->valid_hours, "How long it may be used")
      ->type_name("N")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{8760}))
      ->capture_default_str();
  add_folder(*command, one);
  auto asked = add_command(pki, "request", "On the device: make a key that stays there, and a request to certify it", action, request, &command);
  command->add_option("NAME", asked->name, "Name of the client")->required();
  command->add_option("--token", asked->token, "What 'fl pki token NAME' printed; '-' reads it from standard input")->required();
  command->add_option("--output", asked->output, "Folder for key.pem and request.pem")->required()->type_name("DIR");
}

}  // namespace

void add_pki(CLI::App& app, Action& action) {
  auto* pki = app.add_subcommand("pki", "Certificates of servers and clients: make, renew, revoke, list");
  pki->require_subcommand(1);
  CLI::App* command = nullptr;
  auto made = add_command(*pki, "init", "Make an authority: root certificate, key, empty revocation list", action, init, &command);
  made->days = kAuthorityLifetimeDays;
  command->add_option("DIR", made->folder, "Folder of the authority")->capture_default_str();
  add_days(*command, made);
  add_issue(*pki, action);
  add_device_commands(*pki, action);
  auto renewed = add_command(*pki, "renew", "The next certificate, for the same key unless a client still has P-256; the old one stays valid until it expires", action, renew, &command);
  command->add_option("NAME", renewed->name, "Name of a server or client")->required();
  add_days(*command, renewed);
  add_folder(*command, renewed);
  auto revoked = add_command(*pki, "revoke", "Revoke all valid certificates of a name, and write the next revocation list", action, revoke, &command);
  command->add_option("NAME", revoked->name, "Name of a server or client, or the serial of one certificate")->required();
  add_folder(*command, revoked);
  auto listed = add_command(*pki, "list", "What was issued, days left, and what to renew", action, list, &command);
  command->add_flag("--json", listed->json, "One JSON object");
  add_folder(*command, listed);
}

}  // namespace fl::cli
