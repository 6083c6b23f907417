#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "aggregator/net/upload_pool.h"
#include "aggregator/store/journal.h"
#include "fl_core/base/sha256.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/transport/transport.h"
#include "fl_core/wire/control.h"

namespace fl {

/// Where frames for one connected client go. A session implements it; tests write down what they get.
class Line {
 public:
  virtual ~Line() = default;
  /// Queues a frame; never blocks.
  virtual void send(Frame frame) = 0;
  /// Queues chunks of `blob` from `offset` on, all with this request.
  virtual void send_blob(std::uint64_t request, SharedBuffer blob, std::uint64_t offset) = 0;
  /// Drops the blob that is being sent, if any.
  virtual void stop_blob() = 0;
  /// Queues a last frame; after it the connection closes.
  virtual void end(Frame last) = 0;
};

struct DeskOptions {
  std::string run;                    ///< identity of the run, 32 hex digits
  std::string plan;                   ///< JSON text, at most limits::kPlanBytes
  ExampleShape shape;                 ///< what clients' examples must look like
  std::uint64_t max_update_bytes = 0; ///< the longest encoded update, or answer of secure aggregation
  std::size_t uploads = 2;            ///< credits
  double minimum_bytes_per_s = 10'000;  ///< a slower upload loses its credit
  std::uint32_t heartbeat_s = 15;
  Seconds grace_s = 60;               ///< how long a client of the cohort may be away before it counts as left
  std::uint32_t retry_s = 5;
  bool listed_only = false;
  std::vector<std::string> listed;    ///< identities whose numbers are 0, 1, … in this order
};

/// A part of an upload that came in: to be hashed while the next part is decrypted.
struct UploadPiece {
  std::shared_ptr<Sha256> hash;   ///< of the upload; its pieces come in order
  UploadPool::Lease hold;         ///< keeps the memory
  std::span<const std::byte> bytes;
};

/// Something for the engine. `blob`, when set, is what the message's body must be, and `hash` gets all of it in pieces (UploadHasher).
struct Delivery {
  Arrival arrival;
  std::optional<BlobReference> blob;
  std::shared_ptr<Sha256> hash;
};

/// Everything the aggregator knows about its clients while a run goes on: who they are, who is connected, who owes which
/// answer, whose upload has a credit. A state machine without sockets: sessions report events, the engine gives orders, and
/// frames, deliveries and registry changes come out. One thread; time is an argument.
class Desk {
 public:
  struct Outputs {
    std::function<void(Delivery)> deliver;
    std::function<void(UploadPiece)> piece;   ///< all pieces of an upload come before its delivery
    std::function<void()> roster_changed;
    std::function<void()> credit_returned;  ///< from any thread: have credit_freed() called on the desk's own
  };

  /// `known` is the registry as it was stored.
  Desk(DeskOptions options, Outputs outputs, const std::vector<ClientRecord>& known);

  // From sessions. `line` names the connection; each throws ProtocolError when the peer breaks the protocol.

  /// A verified peer said hello. Sends the welcome (and a task that waits for it) and returns nothing, or returns why not.
  std::optional<Refused> connect(const std::shared_ptr<Line>& line, const std::string& identity, const Hello& hello, double unix_seconds, Seconds now);
  /// Its connection ended without a goodbye; it may come back within the grace time.
  void disconnected(const Line& line, double unix_seconds, Seconds now);
  /// It leaves on purpose: its task is `left` at once.
  void goodbye(const Line& line, double unix_seconds, Seconds now);
  void heartbeat(const Line& line, const Heartbeat& heartbeat);
  void fetch(const Line& line, std::uint64_t request, const Fetch& fetch);
  /// An `update`, `failed` or `secure_answer` frame: whole, or with a reference to a blob that will follow.
  void answer(const Line& line, const Frame& frame, Seconds now);
  /// Where the body of a chunk goes. Keeps the memory alive while it is read: the upload may be dropped meanwhile.
  struct Place {
    std::span<std::byte> bytes;  ///< empty: throw the body away, its upload was dropped a moment ago
    UploadPool::Lease hold;
  };
  Place chunk_place(const Line& line, const FrameHeader& head, std::uint64_t offset);
  void chunk_done(const Line& line, Seconds now);

  // From the engine, already on the desk's thread.

  /// `blob` is set when the body does not travel in the frame.
  void assign(ClientId client, const Message& message, const std::optional<BlobReference>& blob, Seconds now);
  void close_round(std::uint32_t round, Seconds now);
  void committed(const RoundReport& report);
  void credit_freed();
  /// Lets grace times and the time for uploads pass.
  void tick(Seconds now);

  /// Connected clients whose policy allows training.
  const std::set<ClientId>& ready() const { return ready_; }
  /// Who came into ready() (true) or left it since the last call, in order. Ten thousand clients come one by one: whoever keeps a copy need
  /// not take all of them each time.
  std::vector<std::pair<ClientId, bool>> take_ready_changes() { return std::exchange(ready_changes_, {}); }
  std::size_t connected() const { return lines_.size(); }
  std::size_t registered() const { return clients_.size(); }
  std::size_t uploads_waiting() const { return waiting_.size(); }
  /// Records that changed since the last call.
  std::vector<ClientRecord> take_changed_records();

 private:
  struct Upload {
    BlobReference blob;
    Frame header;              ///< the update's frame, its header and round
    UploadPool::Lease lease;   ///< empty while it waits for a credit
    std::shared_ptr<Sha256> hash;  ///< likewise
    std::uint64_t received = 0;
    std::size_t piece = 0;     ///< bytes of the chunk that is being read
    Seconds granted_at = 0;    ///< when it got its credit
  };
  struct Job {
    Job(std::uint64_t number, const Message& task, const std::optional<BlobReference>& reference) : request(number), message(task), blob(reference) {}

    std::uint64_t request;
    Message message;
    std::optional<BlobReference> blob;
    bool answered = false;     ///< delivered; waits for the round to be committed
    std::optional<Upload> upload;
    Seconds away_since = kNever;  ///< counts against the grace time
  };
  struct Client {
    ClientRecord record;
    std::shared_ptr<Line> line;
    bool ready = false;
    std::optional<Job> job;
    std::optional<Frame> last_receipt;  ///< sent again after a reconnect: it may have been lost
    std::uint64_t still_coming = 0;     ///< bytes of a dropped upload that may be on their way; they are thrown away
  };

  Client& client_of(const Line& line);
  Client* admit(const std::string& identity, double unix_seconds);
  Client& add_client(ClientId id, const std::string& identity);
  void send_task(Client& client);
  void deliver(Client& client, Arrival::Kind kind, std::optional<Message> message, Seconds now, std::optional<BlobReference> blob = std::nullopt, std::shared_ptr<Sha256> hash = nullptr);
  void settle(Client& client, Outcome outcome);
  void withdraw(Client& client, Seconds now);
  void begin_upload(Client& client, const Frame& frame);
  void grant(Client& client);
  bool lend_credit(Client& client);
  void end_slow_uploads(Seconds now);
  void drop_upload(Client& client);
  bool steal_credit();
  void note_ready(const Client& client);
  void leave(const Line& line, double unix_seconds, Seconds now, bool on_purpose);
  void changed(const Client& client) { changed_.insert(client.record.id); }

  DeskOptions options_;
  Outputs outputs_;
  std::string plan_sha256_;
  SharedBuffer plan_;
  std::map<ClientId, Client> clients_;
  std::map<std::string, ClientId> by_identity_;
  std::set<std::string> listed_;
  std::map<const Line*, ClientId> lines_;
  std::set<ClientId> changed_;
  std::set<ClientId> ready_;
  std::vector<std::pair<ClientId, bool>> ready_changes_;
  std::set<ClientId> away_;        ///< with a job that is not answered, and no line
  std::deque<ClientId> waiting_;   ///< for a credit, first come first served
  std::set<ClientId> uploading_;   ///< had a credit when it was last looked at
  Seconds now_ = 0;                ///< of the last tick
  std::uint64_t next_request_ = 1;
  std::string shape_text_;
  UploadPool pool_;
};

}  // namespace fl
