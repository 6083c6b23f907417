#pragma once

#include <map>
#include <memory>
#include <string>

#include "tests/net_support/net/child_process.h"
#include "tests/net_support/net/loopback.h"

/// The federation of a Loopback as separate processes that may be killed (tests/tools/net/). Clients find the aggregator through
/// the fixture's proxy, wherever its port is.
namespace fl::test {

/// Where a process dies: before the `at`-th change (1, 2, …; 0: nowhere) of a file under `folder`.
struct Crash {
  long at = 0;
  bool half = false;      ///< what it was about to write is written by half
  std::string count_to;   ///< a file for the number of changes, at an orderly end; may be empty
};
std::map<std::string, std::string> crash_environment(const std::filesystem::path& folder, const Crash& crash);

/// Starts the aggregator as federation.config() says. Leads the proxy to it when its port is open; when it dies before, nobody.
std::unique_ptr<ChildProcess> spawn_server(Loopback& federation, const Crash& crash = {});
/// Starts client `number`, whose crash concerns its state folder.
std::unique_ptr<ChildProcess> spawn_client(Loopback& federation, std::size_t number, const Crash& crash = {});

}  // namespace fl::test
