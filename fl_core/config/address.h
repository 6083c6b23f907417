#pragma once

#include <cstdint>
#include <string>

namespace fl {

/// Where to listen or to connect: a host name or an IP address without brackets, and a TCP port.
struct Address {
  std::string host;
  std::uint16_t port = 0;  ///< 0 lets the system choose one to listen on
};

/// Reads "host:port", "192.0.2.7:port" or "[2001:db8::7]:port". The host is not looked up. Throws ConfigError
/// "json_path: got …, expected …".
Address parse_address(const std::string& text, const std::string& json_path);

}  // namespace fl
