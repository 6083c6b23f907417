#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <memory>
#include <optional>
#include <string>

#include "fl_core/net/framed_stream.h"

namespace fl {

/// A timer that aborts a stream unless it is destroyed first; inside within().
class StreamAlarm {
 public:
  StreamAlarm(std::chrono::milliseconds limit, FramedStream& stream)
      : rang_(std::make_shared<bool>(false)), timer_(stream.executor(), limit) {
    timer_.async_wait([rang = rang_, &stream](const boost::system::error_code& error) {
      if (error || *rang) return;
      *rang = true;
      stream.abort();
    });
  }
  /// Also when the timer has already fired but its handler has not run: the handler sees that nobody waits any more.
  ~StreamAlarm() { disarm(); }
  StreamAlarm(const StreamAlarm&) = delete;
  StreamAlarm& operator=(const StreamAlarm&) = delete;

  /// Whether it went off.
  bool disarm() {
    const bool rang = *rang_ && armed_;
    if (armed_) {
      armed_ = false;
      *rang_ = true;
      timer_.cancel();
    }
    return rang;
  }

 private:
  bool armed_ = true;
  std::shared_ptr<bool> rang_;
  boost::asio::steady_timer timer_;
};

template <class T>
boost::asio::awaitable<T> within(std::chrono::milliseconds limit, FramedStream& stream, const char* what,
                                 boost::asio::awaitable<T> operation) {
  StreamAlarm alarm(limit, stream);
  const auto late = [&] { return TimedOut(std::string(what) + " took longer than " + std::to_string(limit.count()) + " ms"); };
  try {
    if constexpr (std::is_void_v<T>) {
      co_await std::move(operation);
      if (alarm.disarm()) throw late();
    } else {
      T result = co_await std::move(operation);
      if (alarm.disarm()) throw late();
      co_return result;
    }
  } catch (const LinkError&) {
    if (alarm.disarm()) throw late();
    throw;
  }
}

}  // namespace fl
