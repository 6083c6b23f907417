#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/net/client_event.h"
#include "client/state_folder.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/frame.h"
#include "fl_core/wire/message.h"

namespace fl {

/// What a link wants to have done. The network layer does it; tests record it. No call may call back into the link.
class LinkEffects {
 public:
  virtual ~LinkEffects() = default;
  /// Queues a frame for the connection that is open.
  virtual void send(Frame frame) = 0;
  /// Get ready to train by this plan as this client of this run; answered by on_prepared() with the serial. `fresh`: store the plan.
  virtual void prepare(std::uint64_t serial, const std::string& plan, const std::string& run, ClientId client, bool fresh) = 0;
  /// Answered by on_blob_ready(), on_blob_opened() or on_blob_refused(). The size was checked. `keep`: it is a model, which may be
  /// asked for again, also of a later process.
  virtual void open_blob(const BlobReference& blob, bool keep) = 0;
  /// More of it was received; all of it: answered by on_blob_ready() or on_blob_wrong().
  virtual void blob_grew(const std::shared_ptr<PartialBlob>& blob) = 0;
  /// Train, measure, or take a step of secure aggregation; answered by exactly one of on_answer(), on_failed(), on_interrupted() with the serial.
  virtual void start(std::uint64_t serial, const Message& task) = 0;
  /// The work that was started last is not wanted any more.
  virtual void interrupt() = 0;
  /// Answered by on_answer_kept().
  virtual void keep_answer(const StoredAnswer& answer, const SharedBuffer& body) = 0;
  /// Only the hash of its body is wanted: the answer must not be on disk. Answered by on_answer_kept().
  virtual void hash_answer(const StoredAnswer& answer, const SharedBuffer& body) = 0;
  /// Answered by on_body_loaded() or on_body_lost().
  virtual void load_body(const StoredAnswer& answer) = 0;
  virtual void forget_answer(const std::string& key) = 0;
  virtual void note(const ClientEvent& event) = 0;
};

/// Who this client is to the server.
struct LinkProfile {
  std::string software;
  std::uint64_t examples = 0;
  bool tells_examples = false;  ///< else the server hears that there are some
  std::string input;         ///< "1x28x28"
  std::uint32_t classes = 0;
  std::uint32_t threads = 1;
};

/// How the server ended a connection.
struct LinkEnd {
  enum class Kind : std::uint8_t { refused, goodbye };
  Kind kind = Kind::goodbye;
  Refusal code = Refusal::busy;
  std::string reason;
  std::uint32_t retry_s = 0;
  bool finished = false;

  /// Trying again would not help before somebody has acted.
  bool final() const;
};

/// Where a chunk's body belongs. Without `blob` it is read and thrown away.
struct ChunkTarget {
  std::uint64_t request = 0;
  std::shared_ptr<PartialBlob> blob;
  std::span<std::byte> bytes;
};

/// The client's end of the conversation as a state machine without sockets, threads or clocks. It lives as long as the program:
/// connections come and go, and what was begun or finished in one is recognised in the next, by a key over the run, the task and
/// the hash of its body.
///
/// Answers to the steps of secure aggregation live in memory only, and until the next task but `evaluate`: once the program has
/// ended, its part in the protocol is over. They survive a broken connection, and are never computed twice.
///
/// Called by the I/O thread alone. Every on_… may throw ProtocolError: the server broke the protocol, and the connection is of no
/// use any more.
class ClientLink {
 public:
  static constexpr std::size_t kTasks = 4;         ///< that a server may have given and not settled
  static constexpr std::size_t kAnswers = 4;       ///< kept until they are settled
  static constexpr std::size_t kAbandoned = 16;    ///< fetches given up whose chunks may still come
  static constexpr int kSilentBeats = 8;           ///< heartbeats without a chunk of what is being fetched
  static constexpr std::size_t kUploadChunk = 256 * 1024;

  /// `plan` is the text held from before, or empty. `answers` are those held from before.
  ClientLink(LinkEffects& effects, LinkProfile profile, std::string plan, std::vector<StoredAnswer> answers);

  // The connection.
  /// The first frame of a new connection.
  Frame hello();
  /// Everything but chunks.
  void on_frame(const Frame& frame);
  /// Where the body of a chunk goes; then, when it is there, on_chunk().
  ChunkTarget chunk_target(const FrameHeader& head, std::uint64_t offset);
  void on_chunk(const ChunkTarget& target);
  Frame heartbeat();
  /// The next piece of an update that the server granted.
  std::optional<Frame> next_chunk();
  void disconnected();
  /// Set when the server ended the connection on purpose.
  const std::optional<LinkEnd>& ended() const { return ended_; }
  bool welcomed() const { return state_ == State::live; }
  std::uint32_t heartbeat_s() const { return heartbeat_s_; }

  // The worker.
  /// Ready to train. No task may have a longer body than `max_task_bytes`. A plan that this machine cannot or must not follow:
  /// `unfit` says why.
  void on_prepared(std::uint64_t serial, std::uint64_t max_task_bytes, const std::string& unfit);
  void on_answer(std::uint64_t serial, const Message& answer, double seconds);
  /// It could not be done here. Not kept: the task is tried again when it comes again.
  void on_failed(std::uint64_t serial, const std::string& reason);
  void on_interrupted(std::uint64_t serial);
  /// The task was no valid task: always throws ProtocolError, unless nobody waits for it any more.
  void on_malformed(std::uint64_t serial, const std::string& what);

  // The store.
  void on_blob_ready(const BlobReference& reference, const SharedBuffer& bytes);
  void on_blob_opened(const std::shared_ptr<PartialBlob>& blob);
  void on_blob_wrong(const BlobReference& reference);
  /// There is no room for it.
  void on_blob_refused(const BlobReference& reference, const std::string& why);
  void on_answer_kept(const StoredAnswer& answer);
  void on_body_loaded(const std::string& key, const SharedBuffer& body);
  void on_body_lost(const std::string& key, const std::string& why);

  // The owner of the machine.
  void on_policy(bool allowed, const std::string& reason);
  /// A last frame for the server. Work is interrupted, answers stay.
  Frame goodbye(const std::string& reason);

  /// Something that does not stop it, said by the threads that work for the link.
  void warn(const std::string& what) { effects_.note(ClientEvent("warning", what)); }
  bool training() const { return busy_; }
  std::size_t answers() const { return answers_.size(); }

 private:
  enum class State : std::uint8_t { offline, greeting, live };
  enum class Plan : std::uint8_t { none, preparing, ready, unfit };

  /// A task from its arrival until it is answered.
  struct Work {
    enum class Stage : std::uint8_t { waiting, opening, fetching, checking, running };
    std::string key;
    std::uint64_t request = 0;
    bool bound = false;  ///< `request` belongs to this connection
    FrameHeader head;
    SharedBuffer header;
    SharedBuffer body;
    BlobReference blob;
    Stage stage = Stage::waiting;
    bool fetched_again = false;
    std::uint32_t secure_step = 0;  ///< of a secure_step; 0 for other tasks
    std::string stopping;  ///< why it was interrupted; the worker has not confirmed yet
  };
  struct Answer {
    StoredAnswer stored;
    SharedBuffer body;
    bool body_held = false;
    bool kept = false;
    bool in_memory = false;        ///< of secure aggregation: never on disk
    std::uint32_t secure_step = 0;  ///< of a secure_answer; 0 for other answers
    bool bound = false;
    bool offered = false;
    bool loading = false;
    std::optional<std::uint64_t> upload;  ///< next offset to send
  };
  struct Incoming {
    std::shared_ptr<PartialBlob> blob;
    std::uint64_t request = 0;
  };

  void on_welcome(const Frame& frame);
  void on_task(const Frame& frame);
  void on_grant(const Frame& frame);
  void on_receipt(const Frame& frame);
  void on_heartbeat_reply(const Frame& frame);
  [[noreturn]] void unexpected(const Frame& frame) const;

  bool recognise(const std::string& key, const Frame& frame);
  void drop_outdated(const FrameHeader& task);
  void keep(Answer& answer);
  void advance();
  void begin(Work& work);
  void run_task(Work& work);
  /// Sends `failed` for a task of this connection.
  void refuse(const Work& work, const std::string& reason);
  /// Forgets the work, and interrupts it or gives up its fetch.
  void withdraw(std::deque<Work>::iterator work);
  void give_up_fetch();
  /// The work of a finished job, if somebody still waits for it.
  std::deque<Work>::iterator finished_work(std::uint64_t serial);
  void offer(Answer& answer);
  void forget(std::size_t index);
  Answer* find_answer(const std::string& key);
  std::string task_key(const Frame& frame, const BlobReference& body) const;

  LinkEffects& effects_;
  LinkProfile profile_;
  State state_ = State::offline;
  std::optional<LinkEnd> ended_;
  std::string run_;
  ClientId client_ = 0;
  std::uint32_t heartbeat_s_ = 15;

  std::string plan_;
  std::string plan_sha256_;
  Plan plan_state_ = Plan::none;
  std::uint64_t plan_serial_ = 0;
  std::uint64_t max_task_bytes_ = 0;
  std::string unfit_;
  bool unfit_told_ = false;

  std::deque<Work> work_;       ///< the first is worked on
  bool busy_ = false;           ///< the worker has not answered yet
  std::uint64_t serial_ = 0;    ///< of the last start
  std::uint64_t wanted_ = 0;    ///< serial whose result somebody waits for; 0: none
  std::vector<Answer> answers_;
  std::optional<Incoming> incoming_;
  int silent_beats_ = 0;
  std::map<std::uint64_t, std::uint64_t> abandoned_;  ///< fetches given up: bytes that may still come

  std::uint64_t next_request_ = 1;
  std::uint64_t heartbeat_sent_ = 0;
  std::uint64_t heartbeat_answered_ = 0;
  bool allowed_ = true;
  std::string not_allowed_;
};

}  // namespace fl
