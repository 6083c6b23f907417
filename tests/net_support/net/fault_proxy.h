#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>

namespace fl::test {

/// What a FaultProxy did so far.
struct FaultCounts {
  std::uint64_t connections = 0;  ///< accepted, refused ones included
  std::uint64_t refused = 0;
  std::uint64_t unreachable = 0;  ///< reset because the server took no connection
  std::uint64_t resets = 0;
  std::uint64_t cuts = 0;
  std::uint64_t half_open = 0;
  std::uint64_t corrupted = 0;    ///< bytes
  std::uint64_t duplicated = 0;   ///< bytes
  std::uint64_t bytes_up = 0;     ///< written towards the server
  std::uint64_t bytes_down = 0;
};

/// A TCP relay on loop-back between clients and a server, which does to the bytes what a script says (fault_script.h). It
/// runs in a thread of its own; all functions may be called from any thread.
class FaultProxy {
 public:
  /// Listens at 127.0.0.1 on a free port and relays to 127.0.0.1:`target`. Throws ConfigError for a bad script.
  explicit FaultProxy(std::uint16_t target);
  FaultProxy(std::uint16_t target, const nlohmann::json& script);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  std::uint16_t port() const;
  /// Connections that come from now on follow `script`; their numbers go on counting.
  void change(const nlohmann::json& script);
  /// Connections that come from now on lead to this port: a server that was started again.
  void retarget(std::uint16_t target);
  /// A partition of the network: what comes is held back until go_on(), connections included.
  void pause();
  void go_on();
  /// Resets every connection.
  void close_all();
  FaultCounts counts() const;

 private:
  class Relay;
  std::unique_ptr<Relay> relay_;
};

}  // namespace fl::test
