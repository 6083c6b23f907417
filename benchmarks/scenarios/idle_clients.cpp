// How many clients does one aggregator hold? N clients with certificates of their own connect over loop-back TLS and have nothing
// to do but their heartbeats; then a cohort among them does rounds. The aggregator is a process of its own.
//   idle_clients_scenario [--clients N] [--cohort N] [--rounds N] [--seconds S] [--heartbeat S] [--json]
// Prints the aggregator's resident memory per client, how long a heartbeat takes to be answered, and the time of a round.

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <cstdio>
#include <deque>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "aggregator/net/serve.h"
#include "fl_core/base/percentile.h"
#include "fl_core/net/framed_stream.h"
#include "fl_core/net/pki.h"
#include "fl_core/wire/control.h"
#include "fl_core/wire/message.h"

namespace fl {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using Clock = std::chrono::steady_clock;

struct Arguments {
  std::size_t clients = 5000;
  std::size_t cohort = 500;
  std::int64_t rounds = 5;
  double seconds = 20;
  std::int64_t heartbeat_s = 5;
  bool json = false;
};

/// Connections that shake hands at a time: an aggregator lets in so many of one address.
constexpr std::size_t kArriving = 64;

struct Fleet {
  explicit Fleet(std::string given) : address(std::move(given)) {}

  std::string address;  ///< "127.0.0.1:port"
  asio::io_context io{1};
  std::size_t arriving = 0;
  std::size_t welcomed = 0;
  std::size_t lost = 0;
  std::string last_loss;
  bool idle = false;                 ///< latencies are written down
  std::vector<double> latencies_ms;
};

/// One client: hello, then a heartbeat now and then; tasks are answered with a delta of zeros.
class IdleClient {
 public:
  IdleClient(Fleet& fleet, const TlsFiles& files) : fleet_(fleet), files_(files), pulse_(fleet.io) {}

  asio::awaitable<void> run() {
    try {
      co_await converse();
    } catch (const Error& error) {
      if (!finished_) {
        ++fleet_.lost;
        fleet_.last_loss = error.what();
      }
    }
    if (!welcomed_) --fleet_.arriving;
    pulse_.cancel();
  }

 private:
  asio::awaitable<void> converse() {
    const auto context = std::make_shared<const TlsContext>(TlsRole::client, files_);
    const auto colon = fleet_.address.rfind(':');
    const tcp::endpoint server(asio::ip::make_address(fleet_.address.substr(0, colon)), static_cast<std::uint16_t>(std::stoul(fleet_.address.substr(colon + 1))));
    tcp::socket socket(fleet_.io);
    boost::system::error_code error;
    co_await socket.async_connect(server, asio::redirect_error(asio::use_awaitable, error));
    if (error) throw LinkError(error.message());
    stream_ = std::make_unique<FramedStream>(std::move(socket), context);
    const std::string host = "127.0.0.1";
    co_await stream_->handshake(host);
    Hello hello;
    hello.software = "idle";
    hello.examples = 1;
    hello.input = "1";
    hello.classes = 2;
    co_await send(encode(hello));
    for (;;) {
      const Frame frame = co_await stream_->read_frame();
      const bool more = co_await handle(frame);
      if (!more) co_return;
    }
  }

  asio::awaitable<bool> handle(const Frame& frame) {
    switch (frame.head.type) {
      case FrameType::welcome: {
        const Welcome welcome = parse_welcome(frame);
        welcomed_ = true;
        --fleet_.arriving;
        ++fleet_.welcomed;
        const auto first_beat = std::chrono::milliseconds(welcome.client * 997 % (1000 * welcome.heartbeat_s));
        asio::co_spawn(fleet_.io, beat(first_beat, std::chrono::seconds(welcome.heartbeat_s)), [](const std::exception_ptr&) {});
        break;
      }
      case FrameType::heartbeat_reply:
        if (fleet_.idle && sent_ != Clock::time_point()) fleet_.latencies_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - sent_).count());
        break;
      case FrameType::train: co_await send(zeros(frame)); break;
      case FrameType::goodbye:
        finished_ = true;
        stream_->close();
        co_return false;
      case FrameType::refused: throw LinkError(parse_refused(frame).reason);
      default: break;
    }
    co_return true;
  }

  /// Answers and heartbeats come from two coroutines; a stream has one writer.
  asio::awaitable<void> send(Frame frame) {
    queue_.push_back(std::move(frame));
    if (writing_) co_return;
    writing_ = true;
    while (!queue_.empty()) {
      const Frame next = std::move(queue_.front());
      queue_.pop_front();
      co_await stream_->write_frame(next);
    }
    writing_ = false;
  }

  static Frame zeros(const Frame& task) {
    const auto header = nlohmann::json::from_cbor(task.header.span());
    UpdateHeader update;
    update.round = task.head.round;
    update.model_version = header.at("model_version");
    update.fingerprint = header.at("fingerprint");
    update.weight = 1;
    update.metrics.examples = 1;
    update.codec = "identity";
    return frame_of(encode_update(update, SharedBuffer(Bytes(task.body.size()))), task.head.request);
  }

  asio::awaitable<void> beat(Clock::duration first, Clock::duration pause) {
    pulse_.expires_after(first);
    for (std::uint64_t number = 1; stream_->open(); ++number) {
      boost::system::error_code error;
      co_await pulse_.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (error || !stream_->open()) co_return;
      sent_ = Clock::now();
      co_await send(encode(Heartbeat(), number));
      pulse_.expires_after(pause);
    }
  }

  Fleet& fleet_;
  TlsFiles files_;
  asio::steady_timer pulse_;
  std::unique_ptr<FramedStream> stream_;
  std::deque<Frame> queue_;
  bool writing_ = false;
  Clock::time_point sent_;
  bool welcomed_ = false;
  bool finished_ = false;
};

void raise_descriptor_limit(std::size_t clients) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < clients + 100) {
    throw ConfigError("this system allows " + std::to_string(limit.rlim_cur) + " open files, " + std::to_string(clients) + " clients need more; raise 'ulimit -Hn', or choose fewer --clients");
  }
}

/// Certificates of the aggregator and of all clients, and server.json.
void write_config(const std::filesystem::path& folder, const Arguments& arguments) {
  Authority authority = Authority::create(folder / "pki");
  const std::vector<std::string> hosts = {"127.0.0.1"};
  const IssuedFiles server = authority.issue_server("aggregator", hosts);
  std::vector<std::string> names;
  for (std::size_t i = 0; i <= arguments.clients; ++i) names.push_back("client-" + std::to_string(i));
  authority.issue_clients(names);
  const nlohmann::json experiment = {{"name", "idle_clients"},
                                     {"rounds", arguments.rounds},
                                     {"data", {{"name", "synthetic"}}},
                                     {"partition", {{"name", "iid"}, {"clients", arguments.clients}}},
                                     {"model", {{"name", "flat"}, {"parameters", 10}}},
                                     {"trainer", {{"name", "sgd"}}},
                                     {"round", {{"cohort", arguments.cohort}}}};
  // One client more starts the rounds: until it comes, nobody is asked.
  const nlohmann::json config = {
      {"experiment", experiment},
      {"folder", "run"},
      {"listen", "127.0.0.1:0"},
      {"tls", {{"certificate", server.certificate}, {"key", server.key}, {"authority", authority.certificate()}, {"revocations", authority.revocation_list()}}},
      {"clients", {{"minimum", arguments.cohort}, {"at_start", arguments.clients + 1}}},
      {"limits", {{"heartbeat_s", arguments.heartbeat_s}, {"sessions", arguments.clients + 1}}},
      {"data_shape", {{"input", {1}}, {"classes", 2}}}};
  std::ofstream(folder / "server.json") << config.dump(2);
}

/// Runs `action` in a process of its own, whose memory is not this one's. REQUIRES: no other thread.
template <class Action>
pid_t in_child(const char* who, Action action) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  int code = 1;
  try {
    action();
    code = 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", who, error.what());
  }
  ::_exit(code);
}

/// In the aggregator's process.
void be_aggregator(const std::filesystem::path& folder) {
  const ServerConfig config = load_server_config(folder / "server.json");
  ServeHooks hooks;
  nlohmann::json rounds = nlohmann::json::array();
  hooks.line = [&](const nlohmann::json& line) { rounds.push_back({{"wall_seconds", line.at("wall_seconds")}, {"outcomes", line.at("outcomes")}}); };
  serve(config, hooks);
  std::ofstream(folder / "result.json") << rounds.dump();
}

std::uint64_t resident_bytes(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/status");
  for (std::string word; file >> word;) {
    std::uint64_t kilobytes = 0;
    if (word == "VmRSS:" && file >> kilobytes) return kilobytes * 1024;
  }
  return 0;
}

/// Runs the fleet's events until `done`, at most for `limit`.
template <class Done>
void run_until(Fleet& fleet, std::chrono::duration<double> limit, Done done) {
  const auto end = Clock::now() + std::chrono::duration_cast<Clock::duration>(limit);
  while (!done() && Clock::now() < end) {
    fleet.io.restart();
    fleet.io.run_for(std::chrono::milliseconds(10));
  }
}

std::string wait_for_address(const std::filesystem::path& file, pid_t aggregator) {
  for (;;) {
    std::string address;
    std::ifstream in(file);
    if (std::getline(in, address)) return address;
    int status = 0;
    if (::waitpid(aggregator, &status, WNOHANG) == aggregator) throw IoError("the aggregator ended before it listened; its message is above");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

class Scenario {
 public:
  Scenario(const Arguments& arguments, std::filesystem::path folder, pid_t aggregator)
      : arguments_(arguments), folder_(std::move(folder)), aggregator_(aggregator), fleet_(wait_for_address(folder_ / "run" / "address", aggregator)) {}

  nlohmann::json run() {
    const std::uint64_t before = resident_bytes(aggregator_);
    const auto start = Clock::now();
    for (std::size_t i = 0; i < arguments_.clients; ++i) connect(i);
    run_until(fleet_, std::chrono::seconds(300), [&] { return fleet_.welcomed + fleet_.lost >= arguments_.clients; });
    const double connecting_s = std::chrono::duration<double>(Clock::now() - start).count();
    if (fleet_.welcomed != arguments_.clients) {
      throw LinkError(std::to_string(fleet_.welcomed) + " of " + std::to_string(arguments_.clients) + " clients were welcomed; the last loss: " + fleet_.last_loss);
    }
    fleet_.idle = true;
    run_until(fleet_, std::chrono::duration<double>(arguments_.seconds), [] { return false; });
    fleet_.idle = false;
    const std::uint64_t after = resident_bytes(aggregator_);
    connect(arguments_.clients);
    run_until(fleet_, std::chrono::seconds(300), [&] { return std::filesystem::exists(folder_ / "result.json"); });
    run_until(fleet_, std::chrono::seconds(5), [&] { return ended(); });
    nlohmann::json result = {{"clients", arguments_.clients},
                             {"connecting_s", connecting_s},
                             {"aggregator_rss_bytes_before", before},
                             {"aggregator_rss_bytes", after},
                             {"rss_bytes_per_client", static_cast<double>(after - std::min(after, before)) / static_cast<double>(arguments_.clients)},
                             {"lost", fleet_.lost}};
    add_latency(result);
    add_rounds(result);
    return result;
  }

 private:
  void connect(std::size_t number) {
    run_until(fleet_, std::chrono::seconds(60), [&] { return fleet_.arriving < kArriving; });
    const auto own = folder_ / "pki" / "issued" / ("client-" + std::to_string(number));
    const TlsFiles files{own / "cert.pem", own / "key.pem", folder_ / "pki" / "ca.pem", ""};
    clients_.push_back(std::make_unique<IdleClient>(fleet_, files));
    ++fleet_.arriving;
    asio::co_spawn(fleet_.io, clients_.back()->run(), [](const std::exception_ptr& error) {
      if (error) std::rethrow_exception(error);
    });
  }

  bool ended() {
    int status = 0;
    ended_ = ended_ || ::waitpid(aggregator_, &status, WNOHANG) == aggregator_;
    return ended_;
  }

  void add_latency(nlohmann::json& result) {
    std::vector<double>& latencies = fleet_.latencies_ms;
    std::sort(latencies.begin(), latencies.end());
    result["heartbeats"] = latencies.size();
    if (latencies.empty()) return;
    result["heartbeat_ms"] = {{"p50", percentile(latencies, 0.5)}, {"p99", percentile(latencies, 0.99)}, {"max", latencies.back()}};
  }

  void add_rounds(nlohmann::json& result) {
    std::ifstream in(folder_ / "result.json");
    if (!in.good()) throw LinkError("the rounds did not come to their end");
    std::vector<double> seconds;
    for (const auto& round : nlohmann::json::parse(in)) {
      if (round.at("outcomes").value("accepted", std::size_t{0}) != arguments_.cohort) throw LinkError("not every member of the cohort was accepted: " + round.dump());
      seconds.push_back(round.at("wall_seconds"));
    }
    result["cohort"] = arguments_.cohort;
    result["round_seconds"] = seconds;
  }

  const Arguments& arguments_;
  std::filesystem::path folder_;
  pid_t aggregator_;
  bool ended_ = false;
  Fleet fleet_;
  std::vector<std::unique_ptr<IdleClient>> clients_;
};

void print(const nlohmann::json& result, bool json) {
  if (json) {
    std::printf("%s\n", result.dump().c_str());
    return;
  }
  std::printf("%zu idle clients, connected in %.1f s\n", result.at("clients").get<std::size_t>(), result.at("connecting_s").get<double>());
  std::printf("aggregator  %.1f MB resident, %.1f KB a client\n", result.at("aggregator_rss_bytes").get<double>() / 1e6, result.at("rss_bytes_per_client").get<double>() / 1e3);
  if (result.contains("heartbeat_ms")) {
    const auto& beat = result.at("heartbeat_ms");
    std::printf("heartbeat   %.2f ms median, %.2f ms p99, %.2f ms longest of %zu\n", beat.at("p50").get<double>(), beat.at("p99").get<double>(), beat.at("max").get<double>(),
                result.at("heartbeats").get<std::size_t>());
  }
  auto seconds = result.at("round_seconds").get<std::vector<double>>();
  std::sort(seconds.begin(), seconds.end());
  std::printf("round       %.3f s median among %zu of them\n", seconds[seconds.size() / 2], result.at("cohort").get<std::size_t>());
}

int run(const Arguments& arguments) {
  raise_descriptor_limit(arguments.clients);
  const auto folder = std::filesystem::temp_directory_path() / ("idle_clients." + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  int issued = 1;
  ::waitpid(in_child("certificates", [&] { write_config(folder, arguments); }), &issued, 0);
  if (issued != 0) return 1;
  const pid_t aggregator = in_child("aggregator", [&] { be_aggregator(folder); });
  int code = 0;
  try {
    Scenario scenario(arguments, folder, aggregator);
    print(scenario.run(), arguments.json);
  } catch (const Error& error) {
    std::fprintf(stderr, "idle_clients_scenario: %s\n", error.what());
    code = 1;
  }
  ::kill(aggregator, SIGKILL);
  ::waitpid(aggregator, nullptr, 0);
  std::filesystem::remove_all(folder);
  return code;
}

}  // namespace
}  // namespace fl

int main(int argc, char** argv) {
  CLI::App app("Idle clients on one aggregator over loop-back TLS: memory, heartbeats, and a round among some of them");
  fl::Arguments arguments;
  app.add_option("--clients", arguments.clients, "Clients")->check(CLI::Range(1, 25'000));
  app.add_option("--cohort", arguments.cohort, "Clients of a round")->check(CLI::Range(1, 25'000));
  app.add_option("--rounds", arguments.rounds, "Rounds")->check(CLI::Range(1, 1000));
  app.add_option("--seconds", arguments.seconds, "Idle time in which heartbeats are measured")->check(CLI::Range(0.0, 3600.0));
  app.add_option("--heartbeat", arguments.heartbeat_s, "Seconds between a client's heartbeats")->check(CLI::Range(1, 3600));
  app.add_flag("--json", arguments.json, "One JSON object");
  CLI11_PARSE(app, argc, argv);
  ::signal(SIGPIPE, SIG_IGN);
  try {
    return fl::run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "idle_clients_scenario: %s\n", error.what());
    return 1;
  }
}
