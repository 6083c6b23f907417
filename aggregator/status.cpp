#include "aggregator/status.h"

#include <sys/resource.h>
#include <unistd.h>

#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/human.h"
#include "fl_core/base/memory.h"

namespace fl {
namespace {

constexpr std::array<const char*, 7> kPhaseNames = {"starting",   "waiting",  "training", "aggregating",
                                                    "evaluating", "finished", "failed"};
constexpr double kSecondsPerDay = 86400;

std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  std::array<char, 32> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), value);
  FL_CHECK(error == std::errc(), "a number that does not fit");
  return std::string(text.data(), end);
}
std::string number(std::uint64_t value) { return std::to_string(value); }
std::string number(std::int64_t value) { return std::to_string(value); }

/// Inside the quotes of a label.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? "\\n" : std::string(1, c);
  }
  return out;
}

/// Prometheus' text format: each metric with its help and type, then its samples.
class Exposition {
 public:
  void begin(const char* name, const char* type, const char* help) {
    name_ = name;
    text_ += "# HELP " + name_ + " " + help + "\n# TYPE " + name_ + " " + type + "\n";
  }
  template <class Value>
  void sample(Value value) {
    text_ += name_ + " " + number(value) + "\n";
  }
  template <class Value>
  void sample(const char* label, const std::string& label_value, Value value) {
    text_ += name_ + "{" + label + "=\"" + escaped(label_value) + "\"} " + number(value) + "\n";
  }
  template <class Value>
  void gauge(const char* name, const char* help, Value value) {
    begin(name, "gauge", help);
    sample(value);
  }
  template <class Value>
  void counter(const char* name, const char* help, Value value) {
    begin(name, "counter", help);
    sample(value);
  }
  std::string take() { return std::move(text_); }

 private:
  std::string name_;
  std::string text_;
};

void show_run(Exposition& out, const Status& status) {
  out.begin("tributary_run_info", "gauge", "The experiment that is run.");
  out.sample("run", status.run, std::uint64_t{1});
  out.gauge("tributary_round", "The round that is going on, or the last one.", std::uint64_t{status.round});
  out.gauge("tributary_rounds", "Rounds that will be run.", std::uint64_t{status.rounds});
  out.begin("tributary_phase", "gauge", "1 for what the aggregator is doing, 0 for the rest.");
  for (std::size_t i = 0; i < kPhaseNames.size(); ++i) {
    out.sample("phase", kPhaseNames[i], std::uint64_t{i == static_cast<std::size_t>(status.phase)});
  }
  out.begin("tributary_phase_seconds_total", "counter", "Seconds spent in each phase.");
  out.sample("phase", "waiting", status.seconds_waiting);
  out.sample("phase", "training", status.seconds_training);
  out.sample("phase", "aggregating", status.seconds_aggregating);
  out.sample("phase", "evaluating", status.seconds_evaluating);
  out.gauge("tributary_cohort_clients", "Clients asked in this round.", status.cohort);
  out.gauge("tributary_answered_clients", "Clients of the cohort that have answered.", status.answered);
  out.begin("tributary_updates_total", "counter", "Members of cohorts by what became of them.");
  for (std::size_t i = 0; i < kOutcomes; ++i) out.sample("outcome", outcome_name(static_cast<Outcome>(i)), status.outcomes[i]);
  if (status.privacy) {
    const PrivacyReport& privacy = *status.privacy;
    out.gauge("tributary_privacy_epsilon", "Privacy spent so far; see tributary_privacy_delta and the run's ledger.", privacy.epsilon);
    out.gauge("tributary_privacy_delta", "The delta that tributary_privacy_epsilon is for.", privacy.delta);
    if (privacy.epsilon_left) out.gauge("tributary_privacy_epsilon_left", "What is left of the promised epsilon.", *privacy.epsilon_left);
    out.gauge("tributary_private", "1 with noise that nobody can foresee, 0 otherwise.", std::uint64_t{privacy.is_private});
    out.gauge("tributary_clip_norm", "L2 bound on a client's update in the last round, 0 where the server has none.", privacy.clip_norm);
  }
  if (status.accuracy) out.gauge("tributary_test_accuracy", "Accuracy on the test set, 0 to 1.", *status.accuracy);
  if (status.loss) out.gauge("tributary_test_loss", "Mean loss on the test set in nats.", *status.loss);
}

void show_traffic(Exposition& out, const Status& status) {
  out.begin("tributary_bytes_total", "counter", "Bytes exchanged with clients, TLS included.");
  out.sample("direction", "in", status.bytes_in);
  out.sample("direction", "out", status.bytes_out);
  out.gauge("tributary_uploads_waiting", "Updates that wait for an upload credit.", status.uploads_waiting);
}

void show_clients(Exposition& out, const Status& status, double now) {
  out.gauge("tributary_connected_clients", "Clients with a welcomed session.", status.connected);
  out.gauge("tributary_ready_clients", "Connected clients whose policy allows training now.", status.ready);
  out.gauge("tributary_registered_clients", "Clients that were ever admitted to this run.", status.registered);
  out.counter("tributary_sessions_total", "Sessions that were welcomed.", status.sessions_total);
  out.counter("tributary_handshakes_failed_total", "Connections that never passed TLS.", status.handshakes_failed);
  out.counter("tributary_refused_total", "Sessions ended with a refusal.", status.refused);
  if (!status.cohort_is_secret) show_traffic(out, status);
  if (status.certificate_not_after != 0) {
    out.gauge("tributary_certificate_days_left", "Whole days until the server's certificate expires; negative afterwards.",
              std::floor((static_cast<double>(status.certificate_not_after) - now) / kSecondsPerDay));
  }
  if (status.revocation_number >= 0) {
    out.gauge("tributary_revocation_number", "Number of the revocation list in use.", status.revocation_number);
  }
}

void show_process(Exposition& out, const ProcessUsage& usage) {
  if (usage.start_time > 0) {
    out.gauge("process_start_time_seconds", "Start of the process in seconds since 1970.", usage.start_time);
  }
  out.counter("process_cpu_seconds_total", "User and system time.", usage.cpu_seconds);
  if (usage.resident_bytes > 0) out.gauge("process_resident_memory_bytes", "Resident memory.", usage.resident_bytes);
  if (usage.open_files > 0) out.gauge("process_open_fds", "Open file descriptors.", usage.open_files);
}

/// Seconds since 1970 at which this process started; 0 when /proc does not say.
double start_time() {
  // proc(5): the 22nd field, in clock ticks after the boot. The 2nd may hold anything, but ends with the last ')'.
  std::ifstream stat("/proc/self/stat");
  std::string line;
  std::getline(stat, line);
  const std::size_t name_end = line.rfind(')');
  if (name_end == std::string::npos) return 0;
  std::istringstream fields(line.substr(name_end + 1));
  std::string word;
  for (int field = 3; field < 22; ++field) fields >> word;
  std::uint64_t ticks = 0;
  if (!(fields >> ticks)) return 0;
  std::ifstream system("/proc/stat");
  std::uint64_t boot = 0;
  while (system >> word && word != "btime") system.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  if (!(system >> boot)) return 0;
  return static_cast<double>(boot) + static_cast<double>(ticks) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

double seconds_of(const timeval& time) { return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6; }

void append(std::string& line, const std::string& part) { line += (line.empty() ? "" : "  ") + part; }

}  // namespace

const char* phase_name(Status::Phase phase) { return kPhaseNames.at(static_cast<std::size_t>(phase)); }

std::string status_line(const Status& status) {
  using Phase = Status::Phase;
  std::string line;
  if (status.rounds != 0) append(line, "round " + std::to_string(status.round) + "/" + std::to_string(status.rounds));
  append(line, phase_name(status.phase));
  if (status.phase == Phase::failed && !status.last_problem.empty()) line += ": " + status.last_problem;
  if (status.phase == Phase::training && status.cohort != 0) {
    append(line, std::to_string(status.answered) + " of " + std::to_string(status.cohort) + " answered");
  }
  append(line, std::to_string(status.connected) + (status.connected == 1 ? " client connected" : " clients connected"));
  if (status.ready < status.connected) line += " (" + std::to_string(status.ready) + " ready)";
  if (status.accuracy) append(line, percent(*status.accuracy) + " accuracy");
  if (status.privacy) append(line, "epsilon " + (std::isfinite(status.privacy->epsilon) ? human_number(status.privacy->epsilon) : "infinite") + (status.privacy->is_private ? "" : " NOT PRIVATE"));
  if (!status.cohort_is_secret && status.bytes_in + status.bytes_out != 0) {
    append(line, human_bytes(static_cast<double>(status.bytes_in)) + " in, " + human_bytes(static_cast<double>(status.bytes_out)) + " out");
  }
  return line;
}

std::optional<std::string> unready_reason(const Status& status, double now) {
  if (status.phase == Status::Phase::starting) return "the aggregator is starting";
  if (status.phase == Status::Phase::failed) {
    return "the run has failed" + (status.last_problem.empty() ? "" : ": " + status.last_problem);
  }
  if (static_cast<double>(status.certificate_not_after) <= now) {
    return "the server's certificate has expired; renew it with 'fl pki renew'";
  }
  return std::nullopt;
}

ProcessUsage process_usage() {
  static const double started = start_time();
  ProcessUsage usage;
  usage.start_time = started;
  rusage times{};
  if (::getrusage(RUSAGE_SELF, &times) == 0) usage.cpu_seconds = seconds_of(times.ru_utime) + seconds_of(times.ru_stime);
  usage.resident_bytes = resident_bytes();
  std::error_code error;
  for (std::filesystem::directory_iterator file("/proc/self/fd", error), end; !error && file != end; file.increment(error)) {
    ++usage.open_files;
  }
  if (usage.open_files > 0) --usage.open_files;  // the listing itself
  return usage;
}

std::string prometheus_text(const Status& status, const ProcessUsage& usage, double now) {
  Exposition out;
  show_run(out, status);
  show_clients(out, status, now);
  show_process(out, usage);
  return out.take();
}

}  // namespace fl
