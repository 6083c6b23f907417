#include "client/net/deployed_client.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/address.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <exception>
#include <new>
#include <vector>

#include "client/net/backoff.h"
#include "client/net/background.h"
#include "client/net/client_link.h"
#include "client/net/workbench.h"
#include "client/policy.h"
#include "client/state_folder.h"
#include "fl_core/base/human.h"
#include "fl_core/net/framed_stream.h"
#include "fl_core/net/pki.h"

namespace fl {
namespace {

namespace asio = boost::asio;
using asio::awaitable;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kLookUpLimit{15};
constexpr seconds kConnectLimit{10};
constexpr seconds kHandshakeLimit{15};
constexpr seconds kWelcomeLimit{30};
constexpr milliseconds kGoodbyeLimit{500};
constexpr milliseconds kPolicyPoll{500};
/// A connection that lived this long was a good one: the next attempt waits as after the first.
constexpr seconds kGoodConnection{5};
/// Frames that may wait for a server that does not read.
constexpr std::size_t kQueuedFrames = 64;
constexpr double kSlowest_bytes_per_s = 4000;

/// How long a frame with a body of this size may take on the slowest link.
milliseconds time_for(std::uint64_t bytes) { return milliseconds(30'000 + static_cast<std::int64_t>(static_cast<double>(bytes) * 1000 / kSlowest_bytes_per_s)); }

}  // namespace

class DeployedClient::Impl final : public LinkEffects {
 public:
  Impl(ClientConfig config, LocalData data, ClientHooks hooks);
  ~Impl() override { interrupt(); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ExitCode run();
  void request_stop(const std::string& reason) {
    asio::post(io_, [this, reason] { stop(reason, ExitCode::interrupted); });
  }

  void send(Frame frame) override;
  void prepare(std::uint64_t serial, const std::string& plan, ClientId client, bool fresh) override;
  void open_blob(const BlobReference& blob) override;
  void blob_grew(const std::shared_ptr<PartialBlob>& blob) override;
  void start(std::uint64_t serial, const Message& task) override;
  void interrupt() override;
  void keep_answer(const StoredAnswer& answer, const SharedBuffer& body) override;
  void load_body(const StoredAnswer& answer) override;
  void forget_answer(const std::string& key) override;
  void note(const ClientEvent& event) override;

 private:
  static LinkProfile profile(const ClientConfig& config, const LocalData& data, const ClientHooks& hooks);

  // The I/O thread.
  awaitable<void> serve();
  awaitable<void> attempt();
  awaitable<void> converse();
  awaitable<std::vector<tcp::endpoint>> look_up();
  awaitable<tcp::socket> connect();
  awaitable<void> guarded(FramedStream& stream, awaitable<void> loop);
  awaitable<void> read_loop(FramedStream& stream);
  awaitable<void> read_chunk(FramedStream& stream, FrameHeader head);
  awaitable<void> write_loop(FramedStream& stream);
  awaitable<void> beat_loop();
  awaitable<void> watch_policy();
  awaitable<void> pause(milliseconds time);
  void ask_policy();
  milliseconds next_wait();
  void warn_of_expiry(std::int64_t not_after);
  void stop(const std::string& reason, ExitCode result);
  void fail(std::exception_ptr error);
  void break_link(std::exception_ptr error);
  void wake_writer() { wake_.cancel(); }
  /// Runs `action` on the I/O thread; what it finds wrong with the server costs the connection. From any thread.
  template <class Action>
  void on_io(Action action);

  // The worker and the storage thread.
  void work(std::uint64_t serial, const Message& task, const std::atomic<bool>& stop);
  /// Runs on the storage thread; a refused write is noted, and the client goes on.
  template <class Action>
  void on_storage(Action action);

  asio::io_context io_{1};
  ClientConfig config_;
  ClientHooks hooks_;
  StateFolder state_;
  ClientLink link_;
  TrainingPolicy policy_;
  Workbench workbench_;
  Backoff backoff_;

  asio::steady_timer pause_{io_};
  asio::steady_timer wake_{io_};
  asio::steady_timer beat_{io_};
  asio::steady_timer policy_timer_{io_};
  asio::steady_timer goodbye_timer_{io_};
  tcp::resolver resolver_{io_};
  bool looking_up_ = false;
  tcp::socket* socket_ = nullptr;      ///< that is being connected
  FramedStream* stream_ = nullptr;     ///< that is open
  std::vector<Frame> out_;
  bool closing_ = false;               ///< the connection is at its end
  bool said_goodbye_ = false;
  std::exception_ptr failure_;         ///< of this connection, the first one
  std::string trouble_;                ///< why the last attempt ended
  bool over_ = false;
  ExitCode result_ = ExitCode::ok;
  std::exception_ptr fatal_;
  std::int64_t warned_days_ = -1;
  std::shared_ptr<std::atomic<bool>> job_stop_;

  // Last: joined first.
  Background worker_;
  Background storage_;
};

LinkProfile DeployedClient::Impl::profile(const ClientConfig& config, const LocalData& data, const ClientHooks& hooks) {
  LinkProfile profile;
  profile.software = hooks.software;
  profile.examples = data.shard.size();
  profile.input = shape_text(data.shape);
  profile.classes = static_cast<std::uint32_t>(data.shape.classes);
  profile.threads = static_cast<std::uint32_t>(config.limits.threads);
  return profile;
}

DeployedClient::Impl::Impl(ClientConfig config, LocalData data, ClientHooks hooks)
    : config_(std::move(config)),
      hooks_(std::move(hooks)),
      state_(config_.state, static_cast<std::uint64_t>(config_.limits.cache_mb) * 1'000'000),
      link_(*this, profile(config_, data, hooks_), state_.load_plan(), state_.load_answers()),
      policy_(config_.limits),
      workbench_(std::move(data), config_.limits.memory_mb ? static_cast<std::uint64_t>(*config_.limits.memory_mb) * 1'000'000 : machine_bytes()),
      backoff_(hooks_.uniform) {
  wake_.expires_at(Clock::time_point::max());
  if (!hooks_.worker_setup) return;
  worker_.post([this] {
    try {
      hooks_.worker_setup();
    } catch (...) {
      on_io([this, error = std::current_exception()] { fail(error); });
    }
  });
}

ExitCode DeployedClient::Impl::run() {
  asio::co_spawn(io_, serve(), [this](const std::exception_ptr& error) {
    if (error && !fatal_) fatal_ = error;
    over_ = true;
    policy_timer_.cancel();
    goodbye_timer_.cancel();
    if (looking_up_) io_.stop();  // a look-up cannot be cancelled, only left alone
  });
  asio::co_spawn(io_, watch_policy(), [this](const std::exception_ptr& error) {
    if (error) fail(error);
  });
  io_.run();
  interrupt();
  storage_.drain();
  if (fatal_) std::rethrow_exception(fatal_);
  return result_;
}

template <class Action>
void DeployedClient::Impl::on_io(Action action) {
  asio::post(io_, [this, action = std::move(action)]() mutable {
    try {
      action();
    } catch (const ProtocolError&) {
      break_link(std::current_exception());
    }
    wake_writer();
  });
}

template <class Action>
void DeployedClient::Impl::on_storage(Action action) {
  storage_.post([this, action = std::move(action)]() mutable {
    try {
      action();
    } catch (const std::exception& error) {
      on_io([this, what = std::string(error.what())] { note(ClientEvent("warning", what)); });
    }
  });
}

// ---- what the link wants done ----

void DeployedClient::Impl::send(Frame frame) {
  if (stream_ == nullptr) return;
  if (out_.size() >= kQueuedFrames) throw ProtocolError("the server asks, but does not read the answers");
  out_.push_back(std::move(frame));
  wake_writer();
}

void DeployedClient::Impl::prepare(std::uint64_t serial, const std::string& plan, ClientId client, bool fresh) {
  if (fresh) on_storage([this, plan] { state_.store_plan(plan); });
  worker_.post([this, serial, plan, client] {
    PlanCheck check;
    if (hooks_.answer) {
      check.model_bytes = hooks_.model_bytes;
    } else {
      check = workbench_.prepare(plan, client);
    }
    on_io([this, serial, check] {
      if (check.operator_must_act) return fail(std::make_exception_ptr(ConfigError(check.unfit)));
      link_.on_prepared(serial, check.model_bytes, check.unfit);
    });
  });
}

void DeployedClient::Impl::open_blob(const BlobReference& reference) {
  storage_.post([this, reference] {
    try {
      if (auto held = state_.find_blob(reference)) {
        on_io([this, reference, bytes = std::move(*held)] { link_.on_blob_ready(reference, bytes); });
        return;
      }
      const std::shared_ptr<PartialBlob> part = state_.open_part(reference);
      on_io([this, part] { link_.on_blob_opened(part); });
    } catch (const std::bad_alloc&) {
      const std::string what = "no memory for the model's " + human_bytes(static_cast<double>(reference.size_bytes));
      on_io([this, reference, what] { link_.on_blob_refused(reference, what); });
    }
  });
}

void DeployedClient::Impl::blob_grew(const std::shared_ptr<PartialBlob>& part) {
  const bool whole = part->received.load() == part->reference().size_bytes;
  // One look at a time is enough: it takes all that has come in until then.
  if (!whole && part->looked_at.exchange(true)) return;
  storage_.post([this, part, whole] {
    part->looked_at = false;
    const std::string complaint = state_.append(*part);
    if (!complaint.empty()) on_io([this, complaint] { note(ClientEvent("warning", complaint)); });
    if (!whole) return;
    auto bytes = state_.finish(part);
    if (bytes) {
      on_io([this, part, blob = std::move(*bytes)] { link_.on_blob_ready(part->reference(), blob); });
    } else {
      on_io([this, part] { link_.on_blob_wrong(part->reference()); });
    }
  });
}

void DeployedClient::Impl::start(std::uint64_t serial, const Message& task) {
  const auto stop = std::make_shared<std::atomic<bool>>(false);
  job_stop_ = stop;
  worker_.post([this, serial, task, stop] { work(serial, task, *stop); });
}

void DeployedClient::Impl::work(std::uint64_t serial, const Message& task, const std::atomic<bool>& stop) {
  const auto should_stop = [&stop] { return stop.load(std::memory_order_relaxed); };
  const Clock::time_point begin = Clock::now();
  const auto failed = [&](const std::string& why) { on_io([this, serial, why] { link_.on_failed(serial, why); }); };
  try {
    std::optional<Message> answer;
    if (hooks_.answer) {
      answer.emplace(hooks_.answer(task, should_stop));
    } else {
      answer = workbench_.answer(task, should_stop);
    }
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    if (!answer) return failed("there is no answer to this task");
    on_io([this, serial, took, message = std::move(*answer)] { link_.on_answer(serial, message, took); });
  } catch (const Interrupted&) {
    on_io([this, serial] { link_.on_interrupted(serial); });
  } catch (const ProtocolError& error) {
    on_io([this, serial, what = std::string(error.what())] { link_.on_malformed(serial, what); });
  } catch (const std::bad_alloc&) {
    failed("out of memory while training");
  } catch (const std::exception& error) {
    failed(error.what());
  }
}

void DeployedClient::Impl::interrupt() {
  if (job_stop_) *job_stop_ = true;
}

void DeployedClient::Impl::keep_answer(const StoredAnswer& answer, const SharedBuffer& body) {
  storage_.post([this, stored = answer, body]() mutable {
    try {
      state_.keep_answer(stored, body);
    } catch (const std::exception& error) {
      // Delivered all the same, from memory; only a restart would lose it.
      stored.body = reference_to(body.span());
      on_io([this, what = std::string(error.what())] { note(ClientEvent("warning", what)); });
    }
    on_io([this, stored] { link_.on_answer_kept(stored); });
  });
}

void DeployedClient::Impl::load_body(const StoredAnswer& answer) {
  storage_.post([this, answer] {
    try {
      const SharedBuffer body = state_.load_body(answer);
      on_io([this, key = answer.key, body] { link_.on_body_loaded(key, body); });
    } catch (const std::exception& error) {
      on_io([this, key = answer.key, what = std::string(error.what())] { link_.on_body_lost(key, what); });
    }
  });
}

void DeployedClient::Impl::forget_answer(const std::string& key) {
  on_storage([this, key] { state_.forget_answer(key); });
}

void DeployedClient::Impl::note(const ClientEvent& event) {
  if (event.name == "connected") beat_.cancel();  // the server has just said how often
  if (event.name == "settled") backoff_.reset();
  if (hooks_.on_event) hooks_.on_event(event);
}

// ---- connections ----

awaitable<void> DeployedClient::Impl::serve() {
  ask_policy();
  while (!over_) {
    const Clock::time_point begin = Clock::now();
    trouble_.clear();
    co_await attempt();
    if (link_.welcomed() && Clock::now() - begin > kGoodConnection) backoff_.reset();
    link_.disconnected();
    if (over_) break;
    const milliseconds wait = next_wait();
    if (over_) break;
    note(ClientEvent("disconnected", trouble_ + "; trying again in " + human_seconds(static_cast<double>(wait.count()) / 1000),
                     {{"reason", trouble_}, {"retry_s", static_cast<double>(wait.count()) / 1000}}));
    co_await pause(wait);
  }
}

/// One connection, or what became of the attempt in trouble_.
awaitable<void> DeployedClient::Impl::attempt() {
  try {
    co_await converse();
  } catch (const ProtocolError& error) {
    trouble_ = std::string("the server broke the protocol: ") + error.what();
  } catch (const LinkError& error) {
    trouble_ = error.what();
  } catch (const ConfigError& error) {  // certificates, which may be renewed while we wait
    trouble_ = error.what();
  } catch (const IoError& error) {
    trouble_ = error.what();
  } catch (const std::bad_alloc&) {
    trouble_ = "out of memory";
  }
}

milliseconds DeployedClient::Impl::next_wait() {
  if (!link_.ended()) return backoff_.next();
  const LinkEnd end = *link_.ended();
  if (end.final()) {
    fail(std::make_exception_ptr(ConfigError("the server " + config_.server + " refuses this client: " + end.reason)));
    return {};
  }
  if (end.finished) {
    note(ClientEvent("finished", "the run is over: " + end.reason, {{"reason", end.reason}}));
    if (config_.exit_when_finished) {
      over_ = true;
      return {};
    }
  }
  trouble_ = (end.kind == LinkEnd::Kind::refused ? "the server refused: " : "the server said goodbye: ") + end.reason;
  if (end.retry_s != 0) return backoff_.asked_for(end.retry_s);
  // Two clients with one identity would push each other out at full speed.
  if (end.finished || end.code == Refusal::fenced) return backoff_.longest();
  return backoff_.next();
}

void DeployedClient::Impl::warn_of_expiry(std::int64_t not_after) {
  const std::int64_t days = days_left(not_after);
  if (days >= kExpiryWarningDays || days == warned_days_) return;
  warned_days_ = days;
  note(ClientEvent("warning", "the certificate " + config_.tls.certificate + " expires in " + std::to_string(days) + " days; 'fl pki renew' makes a new one",
                   {{"certificate_days_left", days}}));
}

awaitable<std::vector<tcp::endpoint>> DeployedClient::Impl::look_up() {
  error_code error;
  std::vector<tcp::endpoint> found;
  const asio::ip::address address = asio::ip::make_address(config_.host, error);
  if (!error) {
    found.emplace_back(address, config_.port);
    co_return found;
  }
  struct Result {
    error_code error = asio::error::timed_out;
    std::vector<tcp::endpoint> found;
  };
  const auto result = std::make_shared<Result>();
  // Not awaited itself: the system's look-up cannot be cancelled, and may take longer than anybody wants to wait.
  looking_up_ = true;
  pause_.expires_after(kLookUpLimit);
  resolver_.async_resolve(config_.host, std::to_string(config_.port), [this, result](const error_code& failed, const tcp::resolver::results_type& entries) {
    looking_up_ = false;
    result->error = failed;
    for (const auto& entry : entries) result->found.push_back(entry.endpoint());
    pause_.cancel();
  });
  co_await pause_.async_wait(asio::redirect_error(asio::use_awaitable, error));
  if (result->error) throw LinkError("cannot find the address of " + config_.host + ": " + result->error.message());
  co_return result->found;
}

awaitable<tcp::socket> DeployedClient::Impl::connect() {
  const std::vector<tcp::endpoint> endpoints = co_await look_up();
  error_code error = asio::error::host_not_found;
  for (const tcp::endpoint& endpoint : endpoints) {
    if (over_) break;
    tcp::socket socket(io_);
    socket_ = &socket;
    const auto waiting = std::make_shared<bool>(true);
    pause_.expires_after(kConnectLimit);
    pause_.async_wait([this, waiting](const error_code& cancelled) {
      error_code ignored;
      if (!cancelled && *waiting) socket_->close(ignored);
    });
    co_await socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, error));
    *waiting = false;
    socket_ = nullptr;
    pause_.cancel();
    if (!error) co_return socket;
    if (error == asio::error::operation_aborted) error = asio::error::timed_out;
  }
  throw LinkError("cannot connect to " + config_.server + ": " + error.message());
}

awaitable<void> DeployedClient::Impl::converse() {
  using namespace asio::experimental::awaitable_operators;
  // Read again each time: a certificate may have been renewed in place.
  const auto context = std::make_shared<const TlsContext>(TlsRole::client, config_.tls);
  warn_of_expiry(context->not_after());
  tcp::socket socket = co_await connect();
  FramedStream stream(std::move(socket), context);
  stream_ = &stream;
  out_.clear();
  failure_ = nullptr;
  closing_ = said_goodbye_ = false;
  try {
    const std::string& name = config_.server_name;
    co_await within(kHandshakeLimit, stream, "the TLS handshake", stream.handshake(name));
    const Frame hello = link_.hello();
    co_await within(time_for(0), stream, "sending the hello", stream.write_frame(hello));
    co_await (guarded(stream, read_loop(stream)) && guarded(stream, write_loop(stream)) && guarded(stream, beat_loop()));
  } catch (...) {
    stream_ = nullptr;
    throw;
  }
  stream_ = nullptr;
  if (failure_ && !link_.ended()) std::rethrow_exception(failure_);
}

/// Whichever loop ends first ends the connection, and with it the others.
awaitable<void> DeployedClient::Impl::guarded(FramedStream& stream, awaitable<void> loop) {
  try {
    co_await std::move(loop);
  } catch (...) {
    if (!failure_) failure_ = std::current_exception();
  }
  closing_ = true;
  if (failure_) {
    stream.abort();
  } else {
    stream.close();
  }
  wake_writer();
  beat_.cancel();
}

awaitable<void> DeployedClient::Impl::read_loop(FramedStream& stream) {
  while (!link_.ended() && !closing_) {
    const milliseconds patience = link_.welcomed() ? milliseconds(seconds(3 * link_.heartbeat_s())) : milliseconds(kWelcomeLimit);
    const FrameHeader head = co_await within(patience, stream, "a sign of life from the server", stream.read_head());
    if (head.type == FrameType::chunk) {
      co_await read_chunk(stream, head);
    } else {
      const Frame frame = co_await within(time_for(head.body_bytes), stream, "a frame from the server", stream.read_rest(head));
      // Once the goodbye was said, nothing new is begun.
      if (!said_goodbye_) link_.on_frame(frame);
    }
    wake_writer();
  }
}

awaitable<void> DeployedClient::Impl::read_chunk(FramedStream& stream, FrameHeader head) {
  Bytes header(head.header_bytes);
  co_await within(time_for(0), stream, "a chunk", stream.read_exactly(header.span()));
  const std::uint64_t offset = parse_chunk(head, header.span());
  if (said_goodbye_) throw LinkError("the client stops");
  const ChunkTarget target = link_.chunk_target(head, offset);
  if (target.blob) {
    co_await within(time_for(head.body_bytes), stream, "a chunk", stream.read_exactly(target.bytes));
    link_.on_chunk(target);
  } else {
    Bytes thrown_away(head.body_bytes);
    co_await within(time_for(head.body_bytes), stream, "a chunk", stream.read_exactly(thrown_away.span()));
  }
}

awaitable<void> DeployedClient::Impl::write_loop(FramedStream& stream) {
  error_code ignored;
  while (!closing_) {
    std::vector<Frame> batch;
    batch.swap(out_);
    if (batch.empty() && said_goodbye_) co_return;
    if (batch.empty()) {
      if (auto chunk = link_.next_chunk()) batch.push_back(std::move(*chunk));
    }
    if (batch.empty()) {
      co_await wake_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
      continue;
    }
    std::uint64_t bytes = 0;
    for (const Frame& frame : batch) bytes += frame.body.size();
    const std::span<const Frame> frames(batch);
    co_await within(time_for(bytes), stream, "sending", stream.write_frames(frames));
  }
}

awaitable<void> DeployedClient::Impl::beat_loop() {
  error_code ignored;
  while (!closing_) {
    beat_.expires_after(seconds(link_.heartbeat_s()));
    co_await beat_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    if (!closing_ && !said_goodbye_ && link_.welcomed()) send(link_.heartbeat());
  }
}

awaitable<void> DeployedClient::Impl::pause(milliseconds time) {
  error_code ignored;
  pause_.expires_after(time);
  co_await pause_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
}

awaitable<void> DeployedClient::Impl::watch_policy() {
  error_code ignored;
  while (!over_) {
    policy_timer_.expires_after(kPolicyPoll);
    co_await policy_timer_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    if (!over_) ask_policy();
  }
}

void DeployedClient::Impl::ask_policy() {
  const Permission permission = hooks_.policy ? hooks_.policy(link_.training()) : policy_.check(link_.training());
  try {
    link_.on_policy(permission.allowed, permission.reason);
  } catch (const ProtocolError&) {
    break_link(std::current_exception());
  }
}

// ---- the end ----

void DeployedClient::Impl::break_link(std::exception_ptr error) {
  if (stream_ == nullptr) return;
  if (!failure_) failure_ = std::move(error);
  stream_->abort();
}

void DeployedClient::Impl::stop(const std::string& reason, ExitCode result) {
  if (over_) return;
  over_ = true;
  result_ = result;
  Frame last = link_.goodbye(reason);  // interrupts the work
  pause_.cancel();
  resolver_.cancel();
  policy_timer_.cancel();
  error_code ignored;
  if (socket_ != nullptr) socket_->close(ignored);
  if (stream_ == nullptr) return;
  if (!link_.welcomed()) return stream_->abort();
  out_.push_back(std::move(last));
  said_goodbye_ = true;
  wake_writer();
  goodbye_timer_.expires_after(kGoodbyeLimit);
  goodbye_timer_.async_wait([this](const error_code& cancelled) {
    if (!cancelled && stream_ != nullptr) stream_->abort();
  });
}

void DeployedClient::Impl::fail(std::exception_ptr error) {
  if (!fatal_) fatal_ = std::move(error);
  stop("the client cannot go on", ExitCode::bug);
}

DeployedClient::DeployedClient(ClientConfig config, LocalData data, ClientHooks hooks)
    : impl_(std::make_unique<Impl>(std::move(config), std::move(data), std::move(hooks))) {}
DeployedClient::~DeployedClient() = default;
ExitCode DeployedClient::run() { return impl_->run(); }
void DeployedClient::request_stop(const std::string& reason) { impl_->request_stop(reason); }

}  // namespace fl
