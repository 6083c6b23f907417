#include "aggregator/net/tls_transport.h"

#include <algorithm>
#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <future>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "aggregator/net/upload_hasher.h"
#include "fl_core/base/error.h"
#include "fl_core/net/random.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

using Clock = std::chrono::steady_clock;

/// How often the engine looks whether it should stop.
constexpr auto kStopPoll = std::chrono::milliseconds(50);
/// How long clients have to take in the last word.
constexpr auto kFarewell = std::chrono::milliseconds(3000);

constexpr const char* kRevocationKey = "revocation_number";

ReceptionOptions with_floor(ReceptionOptions options, Store& store) {
  if (const auto known = store.meta(kRevocationKey)) options.revocation_floor = std::stoll(*known);
  return options;
}

DeskOptions with_run(DeskOptions options, Store& store) {
  options.run = run_identity(store);
  return options;
}

/// Sinks for what the I/O thread tells the engine.
struct Mailbox {
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<Arrival> arrivals;
  std::set<ClientId> ready;
  std::vector<ClientRecord> records;  ///< changed and not stored yet
  std::int64_t revocation_number = -1;
  std::exception_ptr failure;         ///< of the I/O thread
};

}  // namespace

struct TlsTransport::State {
  State(TlsTransportOptions given, Store& store_given, StatusBoard& status_given)
      : options(std::move(given)),
        store(store_given),
        status(status_given),
        desk(with_run(options.desk, store),
             {[this](Delivery delivery) { hasher.add(std::move(delivery)); }, [this](UploadPiece piece) { hasher.add(std::move(piece)); }, [this] { roster_changed(); },
              [this] { boost::asio::post(io, [this] { desk.credit_freed(); }); }},
             store.clients()),
        reception(io, with_floor(options.reception, store), desk, status, [this] { return now(); }) {}

  Seconds now() const { return offset.load() + std::chrono::duration<double>(Clock::now() - start).count(); }

  void deliver(Delivery delivery) {
    {
      const std::lock_guard lock(mailbox.mutex);
      mailbox.arrivals.push_back(std::move(delivery.arrival));
    }
    mailbox.changed.notify_one();
  }

  void roster_changed() {
    auto records = desk.take_changed_records();
    const auto changes = desk.take_ready_changes();
    status.change([&](Status& s) {
      s.connected = desk.connected();
      s.ready = desk.ready().size();
      s.registered = desk.registered();
    });
    {
      const std::lock_guard lock(mailbox.mutex);
      for (const auto& [id, is_ready] : changes) {
        if (is_ready) {
          mailbox.ready.insert(id);
        } else {
          mailbox.ready.erase(id);
        }
      }
      for (ClientRecord& record : records) mailbox.records.push_back(std::move(record));
      mailbox.revocation_number = reception.revocation_number();
    }
    mailbox.changed.notify_one();
  }

  void run_io() {
    try {
      io.run();
    } catch (...) {
      const std::lock_guard lock(mailbox.mutex);
      mailbox.failure = std::current_exception();
      mailbox.changed.notify_all();
    }
  }

  /// REQUIRES: the lock, which is let go for a moment. Throws what ended the I/O thread, or Interrupted.
  void look_up(std::unique_lock<std::mutex>& lock) const {
    if (mailbox.failure) std::rethrow_exception(mailbox.failure);
    if (options.should_stop && options.should_stop()) throw Interrupted("the run was interrupted");
    if (!look) return;
    lock.unlock();
    look();
    lock.lock();
  }

  /// REQUIRES: the lock, and an arrival.
  Arrival take_arrival() {
    Arrival arrival = std::move(mailbox.arrivals.front());
    mailbox.arrivals.pop_front();
    return arrival;
  }

  void store_changes(std::unique_lock<std::mutex>& lock) {
    if (mailbox.records.empty() && mailbox.revocation_number == stored_revocation) return;
    std::map<ClientId, ClientRecord> newest;
    for (ClientRecord& record : mailbox.records) newest[record.id] = std::move(record);
    mailbox.records.clear();
    const std::int64_t number = mailbox.revocation_number;
    lock.unlock();
    std::vector<ClientRecord> records;
    for (auto& [id, record] : newest) records.push_back(std::move(record));
    if (!records.empty()) store.save_clients(records);
    if (number != stored_revocation) store.set_meta(kRevocationKey, std::to_string(number));
    stored_revocation = number;
    lock.lock();
  }

  TlsTransportOptions options;
  Store& store;
  StatusBoard& status;
  const Clock::time_point start = Clock::now();
  std::atomic<double> offset = 0;
  boost::asio::io_context io{1};
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work{io.get_executor()};
  Mailbox mailbox;
  UploadHasher hasher{[this](Delivery delivery) { deliver(std::move(delivery)); }};
  Desk desk;
  Reception reception;
  std::int64_t stored_revocation = -1;
  std::function<void()> look;
  SharedBuffer last_body;                 ///< its reference is last_blob: a round hashes its weights once
  std::optional<BlobReference> last_blob;
  std::thread thread;
};

TlsTransport::TlsTransport(TlsTransportOptions options, Store& store, StatusBoard& status)
    : state_(std::make_unique<State>(std::move(options), store, status)) {
  State& state = *state_;
  state.roster_changed();
  state.reception.start();
  state.thread = std::thread([&state] { state.run_io(); });
}

TlsTransport::~TlsTransport() {
  finish(Goodbye{"the aggregator stops", 0, false});
  state_->work.reset();
  state_->io.stop();
  state_->thread.join();
}

Roster TlsTransport::roster() {
  State& state = *state_;
  const std::uint64_t wanted = std::max(state.options.minimum_clients, std::exchange(state.options.minimum_at_start, 0));
  std::unique_lock lock(state.mailbox.mutex);
  while (state.mailbox.ready.size() < wanted) {
    state.look_up(lock);
    const std::uint64_t ready = state.mailbox.ready.size();
    lock.unlock();
    if (state.options.on_waiting) state.options.on_waiting(ready, wanted);
    lock.lock();
    state.mailbox.changed.wait_for(lock, kStopPoll);
  }
  // Whoever is on the roster is in the store first: a number that a round used can never be given to another.
  Roster roster;
  roster.ids.assign(state.mailbox.ready.begin(), state.mailbox.ready.end());
  roster.size = roster.ids.size();
  state.store_changes(lock);
  return roster;
}

void TlsTransport::send(ClientId client, const Message& message) {
  State& state = *state_;
  std::optional<BlobReference> blob;
  if (message.body().size() > limits::kInlineBytes) {
    if (state.last_body.span().data() != message.body().span().data() || !state.last_blob) {
      state.last_body = message.body();
      state.last_blob = reference_to(message.body().span());
    }
    blob = state.last_blob;
  }
  boost::asio::post(state.io, [&state, client, message, blob] { state.desk.assign(client, message, blob, state.now()); });
}

std::optional<Arrival> TlsTransport::wait(Seconds deadline) {
  State& state = *state_;
  std::unique_lock lock(state.mailbox.mutex);
  while (state.mailbox.arrivals.empty()) {
    state.look_up(lock);
    const Seconds left = deadline - state.now();
    if (left <= 0) return std::nullopt;
    const auto most = std::min<std::chrono::duration<double>>(kStopPoll, std::chrono::duration<double>(left));
    state.mailbox.changed.wait_for(lock, most, [&] { return !state.mailbox.arrivals.empty() || state.mailbox.failure != nullptr; });
  }
  return state.take_arrival();
}

std::optional<Arrival> TlsTransport::poll() {
  State& state = *state_;
  const std::lock_guard lock(state.mailbox.mutex);
  if (state.mailbox.arrivals.empty()) return std::nullopt;
  return state.take_arrival();
}

void TlsTransport::close_round(std::uint32_t round) {
  State& state = *state_;
  state.last_body = SharedBuffer();
  state.last_blob.reset();
  boost::asio::post(state.io, [&state, round] { state.desk.close_round(round, state.now()); });
}

void TlsTransport::committed(const RoundReport& report) {
  State& state = *state_;
  boost::asio::post(state.io, [&state, report] { state.desk.committed(report); });
}

Seconds TlsTransport::now() const { return state_->now(); }
void TlsTransport::while_waiting(std::function<void()> look) { state_->look = std::move(look); }
void TlsTransport::start_at(Seconds time) { state_->offset = time - std::chrono::duration<double>(Clock::now() - state_->start).count(); }
std::uint16_t TlsTransport::port() const { return state_->reception.port(); }
void TlsTransport::reload() {
  State& state = *state_;
  boost::asio::post(state.io, [&state] { state.reception.reload(); });
}

void TlsTransport::finish(const Goodbye& last) {
  State& state = *state_;
  if (!state.thread.joinable()) return;
  const auto done = std::make_shared<std::promise<void>>();
  boost::asio::post(state.io, [&state, last, done] {
    state.reception.stop(last, kFarewell, [done] { done->set_value(); });
  });
  done->get_future().wait_for(kFarewell + std::chrono::milliseconds(500));
}

std::string run_identity(Store& store) {
  if (const auto known = store.meta("run")) return *known;
  const std::string fresh = random_hex(16);
  store.set_meta("run", fresh);
  return fresh;
}

}  // namespace fl
