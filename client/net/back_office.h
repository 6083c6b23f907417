#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "client/net/background.h"
#include "client/net/client_link.h"
#include "client/net/deployed_client.h"
#include "client/net/workbench.h"
#include "client/state_folder.h"

namespace fl {

/// What a link has done by other threads than its own: a worker owns model and trainer, a second thread hashes and uses the
/// disk. Each call returns at once; what came of it is told to the link on the I/O thread.
class BackOffice {
 public:
  struct Outputs {
    /// Has an action run on the I/O thread. From any thread; nothing may be lost before run() has begun.
    std::function<void(std::function<void(ClientLink&)>)> tell;
    /// The client cannot go on. On the I/O thread.
    std::function<void(std::exception_ptr)> fail;
  };

  /// `hooks` and `state` outlive it; after this only the storage thread uses `state`.
  BackOffice(StateFolder& state, const ClientHooks& hooks, LocalData data, const ClientConfig& config, Outputs outputs);
  ~BackOffice() { interrupt(); }

  void prepare(std::uint64_t serial, const std::string& plan, const std::string& run, ClientId client, bool fresh);
  void open_blob(const BlobReference& reference, bool keep);
  void blob_grew(const std::shared_ptr<PartialBlob>& part);
  void start(std::uint64_t serial, const Message& task);
  void interrupt();
  void keep_answer(const StoredAnswer& answer, const SharedBuffer& body);
  void hash_answer(const StoredAnswer& answer, const SharedBuffer& body);
  void load_body(const StoredAnswer& answer);
  void forget_answer(const std::string& key);
  /// Returns when everything that was given to the store is on disk.
  void drain() { storage_.drain(); }

 private:
  void work(std::uint64_t serial, const Message& task, const std::atomic<bool>& stop);
  void look_at(const std::shared_ptr<PartialBlob>& part, bool whole);
  void warn(const std::string& what);
  /// On the storage thread; a refused write is noted, and the client goes on.
  template <class Action>
  void on_storage(Action action);

  StateFolder& state_;
  const ClientHooks& hooks_;
  Outputs outputs_;
  std::shared_ptr<NoiseKeys> noise_keys_;
  Workbench workbench_;
  std::shared_ptr<std::atomic<bool>> job_stop_;
  // Last: joined first.
  Background worker_;
  Background storage_;
};

}  // namespace fl
