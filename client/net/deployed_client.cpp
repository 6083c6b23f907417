#include "client/net/deployed_client.h"

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <new>
#include <vector>

#include "client/net/back_office.h"
#include "client/net/backoff.h"
#include "client/net/client_link.h"
#include "client/net/connector.h"
#include "client/net/workbench.h"
#include "client/policy.h"
#include "client/state_folder.h"
#include "fl_core/base/human.h"
#include "fl_core/base/memory.h"
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
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  ExitCode run();
  void request_stop(const std::string& reason) {
    asio::post(io_, [this, reason] { stop(reason, ExitCode::interrupted); });
  }

  void send(Frame frame) override;
  void note(const ClientEvent& event) override;
  void prepare(std::uint64_t serial, const std::string& plan, const std::string& run, ClientId client, bool fresh) override {
    office_.prepare(serial, plan, run, client, fresh);
  }
  void open_blob(const BlobReference& blob, bool keep) override { office_.open_blob(blob, keep); }
  void blob_grew(const std::shared_ptr<PartialBlob>& blob) override { office_.blob_grew(blob); }
  void start(std::uint64_t serial, const Message& task) override { office_.start(serial, task); }
  void interrupt() override { office_.interrupt(); }
  void keep_answer(const StoredAnswer& answer, const SharedBuffer& body) override { office_.keep_answer(answer, body); }
  void hash_answer(const StoredAnswer& answer, const SharedBuffer& body) override { office_.hash_answer(answer, body); }
  void load_body(const StoredAnswer& answer) override { office_.load_body(answer); }
  void forget_answer(const std::string& key) override { office_.forget_answer(key); }

 private:
  static LinkProfile profile(const ClientConfig& config, const LocalData& data, const ClientHooks& hooks);

  // The I/O thread.
  awaitable<void> serve();
  awaitable<void> attempt();
  awaitable<void> converse();
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
  void tell(std::function<void(ClientLink&)> action);

  asio::io_context io_{1};
  ClientConfig config_;
  ClientHooks hooks_;
  StateFolder state_;
  ClientLink link_;
  TrainingPolicy policy_;
  Backoff backoff_;
  Connector connector_{io_};

  asio::steady_timer pause_{io_};
  asio::steady_timer wake_{io_};
  asio::steady_timer beat_{io_};
  asio::steady_timer policy_timer_{io_};
  asio::steady_timer goodbye_timer_{io_};
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

  BackOffice office_;  ///< last: its threads end first
};

LinkProfile DeployedClient::Impl::profile(const ClientConfig& config, const LocalData& data, const ClientHooks& hooks) {
  LinkProfile profile;
  profile.software = hooks.software;
  profile.examples = data.shard.size();
  profile.tells_examples = config.tell_examples;
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
      backoff_(hooks_.uniform),
      office_(state_, hooks_, std::move(data), config_,
              {[this](std::function<void(ClientLink&)> action) { tell(std::move(action)); }, [this](std::exception_ptr error) { fail(std::move(error)); }}) {
  wake_.expires_at(Clock::time_point::max());
}

ExitCode DeployedClient::Impl::run() {
  asio::co_spawn(io_, serve(), [this](const std::exception_ptr& error) {
    if (error && !fatal_) fatal_ = error;
    over_ = true;
    policy_timer_.cancel();
    goodbye_timer_.cancel();
    if (connector_.looking_up()) io_.stop();  // a look-up cannot be cancelled, only left alone
  });
  asio::co_spawn(io_, watch_policy(), [this](const std::exception_ptr& error) {
    if (error) fail(error);
  });
  io_.run();
  office_.interrupt();
  office_.drain();
  if (fatal_) std::rethrow_exception(fatal_);
  return result_;
}

void DeployedClient::Impl::tell(std::function<void(ClientLink&)> action) {
  asio::post(io_, [this, action = std::move(action)] {
    try {
      action(link_);
    } catch (const ProtocolError&) {
      break_link(std::current_exception());
    }
    wake_writer();
  });
}

void DeployedClient::Impl::send(Frame frame) {
  if (stream_ == nullptr) return;
  if (out_.size() >= kQueuedFrames) throw ProtocolError("the server asks, but does not read the answers");
  out_.push_back(std::move(frame));
  wake_writer();
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

awaitable<void> DeployedClient::Impl::converse() {
  using namespace asio::experimental::awaitable_operators;
  // Read again each time: a certificate may have been renewed in place.
  const auto context = std::make_shared<const TlsContext>(TlsRole::client, config_.tls);
  warn_of_expiry(context->not_after());
  tcp::socket socket = co_await connector_.connect(config_.host, config_.port);
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
  connector_.stop();
  policy_timer_.cancel();
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
