#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "aggregator/status.h"

namespace fl {

/// Tells load balancers, systemd and Prometheus how the aggregator does, over HTTP/1.1 without TLS on an address of its own:
///
///   /healthz  200 while the process works, 503 when the run has failed
///   /readyz   200 while clients can be admitted, else 503 with the reason in one line
///   /metrics  Prometheus' text format
///
/// GET and HEAD only, no bodies, no state: nobody can change anything here. It has a thread of its own, so it answers whatever the
/// engine does. At most 64 connections are served at a time, the others wait; each request must come and be answered within 5
/// seconds, with at most 8 KiB of header.
class HealthServer {
 public:
  /// Listens on `listen` ("127.0.0.1:9464", "[::1]:9464"; port 0 lets the system choose). `board` must outlive the server. Throws ConfigError
  /// for what is no address of this machine, IoError when the system refuses the port; both name health.listen.
  HealthServer(const std::string& listen, const StatusBoard& board);
  /// Drops the connections and joins the thread.
  ~HealthServer();
  HealthServer(const HealthServer&) = delete;
  HealthServer& operator=(const HealthServer&) = delete;

  /// On which it listens.
  std::uint16_t port() const;

 private:
  class Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace fl
