#include "aggregator/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <limits>

#include "fl_core/base/error.h"
#include "tests/support/prometheus_text.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::read_prometheus;
using testing::HasSubstr;
using testing::Not;

using Phase = Status::Phase;
constexpr double kNow = 1'800'000'000;
constexpr std::int64_t kDay = 86400;

/// Every number is another one, so that none can be taken for its neighbour.
Status in_training() {
  Status status;
  status.phase = Phase::training;
  status.run = "tour";
  status.round = 3;
  status.rounds = 20;
  status.cohort = 10;
  status.answered = 7;
  status.connected = 12;
  status.ready = 12;
  status.registered = 40;
  status.sessions_total = 55;
  status.handshakes_failed = 6;
  status.refused = 8;
  status.bytes_in = 34'000'000;
  status.bytes_out = 12'000'000;
  status.uploads_waiting = 2;
  for (std::size_t i = 0; i < kOutcomes; ++i) status.outcomes[i] = 100 + i;
  status.seconds_waiting = 1.5;
  status.seconds_training = 0.1;
  status.seconds_aggregating = 1e-7;
  status.seconds_evaluating = 1e9;
  status.accuracy = 0.841;
  status.loss = 0.25;
  status.certificate_not_after = static_cast<std::int64_t>(kNow) + 30 * kDay + 5;
  status.revocation_number = 4;
  return status;
}

TEST(StatusLine, ShowsARoundInOneLine) {
  EXPECT_EQ(status_line(in_training()),
            "round 3/20  training  7 of 10 answered  12 clients connected  84.1 % accuracy  34.0 MB in, 12.0 MB out");
}

TEST(StatusLine, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(status_line(Status{}), "starting  0 clients connected");
  Status status;
  status.phase = Phase::waiting;
  status.rounds = 5;
  status.connected = 1;
  EXPECT_EQ(status_line(status), "round 0/5  waiting  1 client connected (0 ready)");
  status = in_training();
  status.phase = Phase::evaluating;
  EXPECT_THAT(status_line(status), Not(HasSubstr("answered")));
}

TEST(StatusLine, SaysWhyARunFailed) {
  Status status = in_training();
  status.last_problem = "the disk is full";
  EXPECT_THAT(status_line(status), Not(HasSubstr("disk"))) << "an old problem, and it goes on";
  status.phase = Phase::failed;
  EXPECT_THAT(status_line(status), testing::StartsWith("round 3/20  failed: the disk is full  12 clients"));
}

TEST(Readiness, NeedsARunThatGoesOnAndAValidCertificate) {
  Status status = in_training();
  for (const Phase phase : {Phase::waiting, Phase::training, Phase::aggregating, Phase::evaluating, Phase::finished}) {
    status.phase = phase;
    EXPECT_EQ(unready_reason(status, kNow), std::nullopt) << phase_name(phase);
  }
  const auto end = static_cast<double>(status.certificate_not_after);
  EXPECT_EQ(unready_reason(status, end - 1), std::nullopt);
  EXPECT_THAT(unready_reason(status, end).value_or(""), HasSubstr("certificate has expired; renew it with 'fl pki renew'"));
  status.phase = Phase::starting;
  EXPECT_THAT(unready_reason(status, kNow).value_or(""), HasSubstr("starting"));
  status.phase = Phase::failed;
  EXPECT_EQ(unready_reason(status, kNow), "the run has failed");
  status.last_problem = "no disk";
  EXPECT_EQ(unready_reason(status, kNow), "the run has failed: no disk");
}

TEST(Prometheus, ShowsEveryNumberOfTheStatus) {
  const std::map<std::string, double> samples = read_prometheus(prometheus_text(in_training(), {1.7e9 + 0.25, 12.5, 250'000'000, 9}, kNow));
  const std::map<std::string, double> expected = {
      {R"(tributary_run_info{run="tour"})", 1},
      {"tributary_round", 3},
      {"tributary_rounds", 20},
      {R"(tributary_phase{phase="starting"})", 0},
      {R"(tributary_phase{phase="waiting"})", 0},
      {R"(tributary_phase{phase="training"})", 1},
      {R"(tributary_phase{phase="aggregating"})", 0},
      {R"(tributary_phase{phase="evaluating"})", 0},
      {R"(tributary_phase{phase="finished"})", 0},
      {R"(tributary_phase{phase="failed"})", 0},
      {R"(tributary_phase_seconds_total{phase="waiting"})", 1.5},
      {R"(tributary_phase_seconds_total{phase="training"})", 0.1},
      {R"(tributary_phase_seconds_total{phase="aggregating"})", 1e-7},
      {R"(tributary_phase_seconds_total{phase="evaluating"})", 1e9},
      {"tributary_cohort_clients", 10},
      {"tributary_answered_clients", 7},
      {R"(tributary_updates_total{outcome="accepted"})", 100},
      {R"(tributary_updates_total{outcome="left"})", 101},
      {R"(tributary_updates_total{outcome="late"})", 102},
      {R"(tributary_updates_total{outcome="failed"})", 103},
      {R"(tributary_updates_total{outcome="malformed"})", 104},
      {R"(tributary_updates_total{outcome="wrong_round"})", 105},
      {R"(tributary_updates_total{outcome="wrong_model"})", 106},
      {R"(tributary_updates_total{outcome="not_finite"})", 107},
      {R"(tributary_updates_total{outcome="out_of_bound"})", 108},
      {R"(tributary_updates_total{outcome="not_summed"})", 109},
      {"tributary_test_accuracy", 0.841},
      {"tributary_test_loss", 0.25},
      {"tributary_connected_clients", 12},
      {"tributary_ready_clients", 12},
      {"tributary_registered_clients", 40},
      {"tributary_sessions_total", 55},
      {"tributary_handshakes_failed_total", 6},
      {"tributary_refused_total", 8},
      {R"(tributary_bytes_total{direction="in"})", 34e6},
      {R"(tributary_bytes_total{direction="out"})", 12e6},
      {"tributary_uploads_waiting", 2},
      {"tributary_certificate_days_left", 30},
      {"tributary_revocation_number", 4},
      {"process_start_time_seconds", 1.7e9 + 0.25},
      {"process_cpu_seconds_total", 12.5},
      {"process_resident_memory_bytes", 250e6},
      {"process_open_fds", 9},
  };
  EXPECT_EQ(samples, expected);
}

TEST(Prometheus, LeavesOutWhatIsNotKnown) {
  const std::string text = prometheus_text(Status{}, {}, kNow);
  read_prometheus(text);
  for (const char* absent : {"test_accuracy", "test_loss", "certificate_days_left", "revocation_number", "process_start_time",
                             "process_resident", "process_open"}) {
    EXPECT_THAT(text, Not(HasSubstr(absent)));
  }
}

TEST(Prometheus, EscapesLabels) {
  Status status;
  status.run = "a\"b\\c\nd {x} \xc3\xa4";
  const std::string text = prometheus_text(status, {}, kNow);
  EXPECT_EQ(read_prometheus(text).count("tributary_run_info{run=\"a\\\"b\\\\c\\nd {x} \xc3\xa4\"}"), 1U) << text;
}

TEST(Prometheus, WritesNumbersExactly) {
  Status status = in_training();
  status.accuracy = 0.1 + 0.2;
  status.loss = std::numeric_limits<double>::infinity();
  status.bytes_in = 9'007'199'254'740'993;  // 2^53 + 1 is no double
  status.certificate_not_after = static_cast<std::int64_t>(kNow) - 1;
  const std::string text = prometheus_text(status, {}, kNow);
  EXPECT_THAT(text, HasSubstr("\ntributary_test_accuracy 0.30000000000000004\n"));
  EXPECT_THAT(text, HasSubstr("\ntributary_test_loss +Inf\n"));
  EXPECT_THAT(text, HasSubstr("{direction=\"in\"} 9007199254740993\n"));
  EXPECT_THAT(text, HasSubstr("\ntributary_certificate_days_left -1\n")) << "rounded down: it has expired";
  status.loss = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THAT(prometheus_text(status, {}, kNow), HasSubstr("\ntributary_test_loss NaN\n"));
}

TEST(Prometheus, TheTestsOwnReaderFindsMistakes) {
  const std::string head = "# HELP a Words.\n# TYPE a gauge\n";
  EXPECT_EQ(read_prometheus(head + "a 1\na{b=\"c\"} 2\n").size(), 2U);
  for (const std::string& text :
       {std::string(), head + "# HELP b Words.\n# TYPE b gauge\nb 1\n", head + "a 1", head + "a one\n", head + "a 1\na 1\n", head + "b 1\n", "a 1\n" + head, head + "a 1\n" + head + "a 2\n",
        head + "a{b=\"c\"d\"} 1\n", head + "a{b=\"\\c\"} 1\n", head + "a{1=\"c\"} 1\n", head + "a  1\n", head + "a 1.2.3\n", head + "\na 1\n",
        std::string("# HELP a_total W.\n# TYPE a_total counter\na_total -1\n"), std::string("# HELP a W.\n# TYPE a counter\na 1\n")}) {
    EXPECT_NE(error_of([&] { read_prometheus(text); }), "") << text;
  }
}

TEST(ProcessUsage, TellsOfThisProcess) {
  const double now = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const ProcessUsage usage = process_usage();
  // /proc counts in whole ticks from a boot time in whole seconds.
  EXPECT_LE(usage.start_time, now + 2);
  EXPECT_GT(usage.start_time, now - 86400);
  EXPECT_GT(usage.resident_bytes, 1'000'000U);
  EXPECT_LT(usage.resident_bytes, 100'000'000'000U);
  const int another = ::open("/dev/null", O_RDONLY);
  EXPECT_EQ(process_usage().open_files, usage.open_files + 1);
  ::close(another);
  EXPECT_GE(process_usage().cpu_seconds, usage.cpu_seconds);
}

}  // namespace
}  // namespace fl
