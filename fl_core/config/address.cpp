#include "fl_core/config/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

/// The longest name in the DNS, RFC 1035 §2.3.4.
constexpr std::size_t kLongestHost = 253;

bool is_name_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
}

/// With digits and dots alone it is an IPv4 address, or a mistake in one.
bool is_host(const std::string& host) {
  if (host.empty() || host.size() > kLongestHost || !std::all_of(host.begin(), host.end(), is_name_character)) return false;
  in_addr ignored{};
  return host.find_first_not_of("0123456789.") != std::string::npos || ::inet_pton(AF_INET, host.c_str(), &ignored) == 1;
}

/// Also with the zone of a link-local address: fe80::1%eth0.
bool is_ipv6(const std::string& host) {
  const std::size_t zone = std::min(host.find('%'), host.size());
  in6_addr ignored{};
  return ::inet_pton(AF_INET6, host.substr(0, zone).c_str(), &ignored) == 1 && zone + 1 != host.size() &&
         std::all_of(host.begin() + static_cast<std::ptrdiff_t>(std::min(zone + 1, host.size())), host.end(), is_name_character);
}

std::optional<std::uint16_t> port_of(const std::string& text) {
  std::uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, port);
  if (error != std::errc() || rest != end) return std::nullopt;
  return port;
}

}  // namespace

Address parse_address(const std::string& text, const std::string& json_path) {
  const std::size_t colon = text.rfind(':');
  const std::string host = text.substr(0, std::min(colon, text.size()));
  const bool brackets = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (!brackets && (is_ipv6(text) || is_ipv6(host))) {
    bad_value(json_path, text, "an IPv6 address in brackets and a port, like \"[2001:db8::7]:7443\"");
  }
  Address address;
  address.host = brackets ? host.substr(1, host.size() - 2) : host;
  const std::optional<std::uint16_t> port = colon == std::string::npos ? std::nullopt : port_of(text.substr(colon + 1));
  if (!port || !(brackets ? is_ipv6(address.host) : is_host(address.host))) {
    bad_value(json_path, text, "a host and a port from 0 to 65535, like \"fl.example.org:7443\", \"192.0.2.7:7443\" or \"[2001:db8::7]:7443\"");
  }
  address.port = *port;
  return address;
}

}  // namespace fl
