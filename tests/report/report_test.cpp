#include "simulations/cli/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "fl_core/base/sha256.h"
#include "simulations/cli/report_view.h"
#include "tests/report/markup.h"
#include "tests/report/sample_runs.h"

namespace fl {
namespace {

using nlohmann::json;
using test::complete_run;
using test::private_run;
using test::count_of;
using test::element;
using test::markup_problem;
using test::round_of;
using test::small_run;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::vector<std::string> sections_of(const std::string& html) {
  std::vector<std::string> ids;
  const std::string start = "<section id=\"";
  for (auto at = html.find(start); at != std::string::npos; at = html.find(start, at + 1)) {
    ids.push_back(html.substr(at + start.size(), html.find('"', at + start.size()) - at - start.size()));
  }
  return ids;
}

/// Base64 (RFC 4648 §4) of whole bytes, as hexadecimal digits.
std::string hex_of_base64(const std::string& text) {
  const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bits;
  for (const char c : text) {
    if (c == '=') continue;
    for (std::size_t bit = 6; bit-- > 0;) bits += (digits.find(c) >> bit & 1U) != 0 ? '1' : '0';
  }
  std::string hex;
  for (std::size_t i = 0; i + 4 <= bits.size() / 8 * 8; i += 4)
    hex += "0123456789abcdef"[std::stoul(bits.substr(i, 4), nullptr, 2)];
  return hex;
}

TEST(MarkupProblem, SeesWhatIsNotWellFormed) {
  EXPECT_EQ(markup_problem("<!DOCTYPE html>\n<a b=\"c\">x &amp; <i/></a>\n"), "");
  EXPECT_THAT(markup_problem("<a><b></a></b>"), HasSubstr("closes"));
  EXPECT_THAT(markup_problem("<a>"), HasSubstr("never closed"));
  EXPECT_THAT(markup_problem("<a>x & y</a>"), HasSubstr("entity"));
  EXPECT_THAT(markup_problem("<a b=c></a>"), HasSubstr("attribute"));
  EXPECT_THAT(markup_problem("<a b=\"1\" b=\"2\"></a>"), HasSubstr("twice"));
  EXPECT_THAT(markup_problem("<a b=\"<\"></a>"), HasSubstr("attribute"));
  EXPECT_THAT(markup_problem("<a><b id=\"x\"/><c id=\"x\"/></a>"), HasSubstr("id"));
}

TEST(Report, ShowsEverySectionOfACompleteRun) {
  const std::string html = render_report({complete_run()});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(sections_of(html), ElementsAre("curves", "numbers", "classes", "clients", "outcomes", "partition", "cost",
                                             "rounds", "experiments"));
  for (const char* figure : {"accuracy", "loss", "training-loss", "update-norm", "bytes", "seconds", "class-accuracy",
                             "client-histogram-1", "client-accuracy", "outcomes-1", "labels-1"}) {
    const std::string markup = element(html, "figure", figure);
    EXPECT_THAT(markup, HasSubstr("role=\"img\"")) << figure;
    EXPECT_THAT(markup, HasSubstr("<title id=\"" + std::string(figure) + "-t\">")) << figure;
    EXPECT_THAT(markup, HasSubstr("<desc id=\"" + std::string(figure) + "-d\">")) << figure;
  }
}

TEST(Report, LeavesOutWhatARunDoesNotHave) {
  const std::string html = render_report({small_run()});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(sections_of(html), ElementsAre("curves", "numbers", "cost", "rounds", "experiments"));
  EXPECT_THAT(html, Not(HasSubstr("class=\"badge\"")));
}

TEST(Report, SaysThatNoRoundHasEnded) {
  RunData run = small_run();
  run.rounds.clear();
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(sections_of(html), ElementsAre("curves", "numbers", "experiments"));
  EXPECT_THAT(html, HasSubstr("No round has ended yet"));
  EXPECT_THAT(html, HasSubstr("No test accuracy after 0 of 2 rounds (not ended)."));
}

TEST(Report, MarksTheOnlyPointOfOneRound) {
  RunData run = small_run();
  run.rounds.pop_back();
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(element(html, "figure", "accuracy"),
              HasSubstr("<circle class=\"dot c0\" cx=\"260\""));  // round 1 of the axis 0 … 2
}

TEST(Report, LoadsNothingAndLetsOnlyItsOwnScriptRun) {
  const std::string html = render_report({complete_run()});
  EXPECT_EQ(count_of(html, "http://") + count_of(html, "https://"), 2U);  // the two XML namespaces
  EXPECT_EQ(count_of(html, "src="), 0U);
  EXPECT_EQ(count_of(html, "<script"), 1U);
  EXPECT_EQ(count_of(html, " style=\""), 0U);
  for (const std::string tag : {"script", "style"}) {
    const auto begin = html.find("<" + tag + ">") + tag.size() + 2;
    const std::string text = html.substr(begin, html.find("</" + tag + ">") - begin);
    const std::string policy = tag + "-src 'sha256-";
    const auto hash = html.find(policy) + policy.size();
    EXPECT_EQ(hex_of_base64(html.substr(hash, html.find('\'', hash) - hash)), Sha256().add(text).finish_hex());
  }
  EXPECT_THAT(html, HasSubstr("default-src 'none'"));
}

TEST(Report, EscapesWhateverComesFromTheRun) {
  const std::string evil = "</title></text><script>alert(1)</script>\" onload='x' &amp;";
  RunData run = complete_run(evil);
  run.folder = evil;
  run.experiment["description"] = evil;
  run.experiment["expect"]["source"] = evil;
  run.experiment["rounds"] = evil;
  run.experiment["seed"] = evil;
  run.experiment["round"] = {{"cohort", evil}};
  run.experiment["trainer"] = {{"name", evil}, {evil, evil}};
  run.run["status"] = evil;
  run.run["model_sha256"] = evil;
  run.run["torch_version"] = evil;
  RunData other = run;
  other.experiment["extra"] = {{evil, evil}};
  for (const auto& runs : {std::vector{run}, std::vector{run, other}}) {
    const std::string html = render_report(runs);
    EXPECT_EQ(markup_problem(html), "");
    EXPECT_EQ(count_of(html, "<script"), 1U);
    EXPECT_EQ(count_of(html, "' &amp;\""), 0U);
    EXPECT_THAT(html, HasSubstr("&lt;/title&gt;&lt;/text&gt;&lt;script&gt;alert(1)"));
  }
}

TEST(Report, ReplacesBytesThatAreNoText) {
  RunData run = small_run("a\xff\xc0\xaf\x01z");
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(html, HasSubstr("<h1>a\uFFFD\uFFFD\uFFFD\uFFFDz</h1>"));
}

TEST(Report, EndsWellWithJsonOfTheWrongShape) {
  RunData run = complete_run();
  run.experiment = {{"name", 5}, {"expect", "high"}, {"trainer", json::array({1})}, {"rounds", nullptr}};
  run.run = {{"status", json::array()}, {"accuracy", "good"}, {"seconds", json::object()}};
  run.partition = json{{"shown", {1}}, {"histogram", {{1, "x"}}}, {"sizes", 4}};
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(sections_of(html), Not(::testing::Contains("partition")));
  run.partition = json{{"clients", 3}, {"shown", {1, 2}}, {"histogram", {{1, 2}, {1}}}};
  EXPECT_EQ(markup_problem(render_report({run})), "");
}

TEST(Report, GivesTheSameBytesForTheSameRuns) {
  EXPECT_EQ(render_report({complete_run(), small_run()}), render_report({complete_run(), small_run()}));
}

TEST(Report, ShowsTheNumbersOfTheRun) {
  const std::string html = render_report({complete_run()});
  EXPECT_THAT(
      html,
      HasSubstr("<strong>75.00\u202f%</strong> test accuracy after 2 rounds in 1\u202fmin 52\u202fs (finished)."));
  EXPECT_THAT(html, HasSubstr("<dt>Traffic</dt><dd>6\u202fkB</dd>"));  // 2 rounds of 1000 up and 2000 down
  EXPECT_THAT(html, HasSubstr("<code title=\"" + std::string(60, 'a') + "1234\">" + std::string(12, 'a') + "</code>"));
  const std::string numbers = element(html, "section", "numbers");
  EXPECT_THAT(numbers, HasSubstr(">Peak memory</th><td>412\u202fMB</td>"));
  EXPECT_THAT(numbers, HasSubstr(">Parameters</th><td>199\u202f210</td>"));
  EXPECT_THAT(numbers, HasSubstr(">Trainer</th><td>sgd, learning_rate 0.1</td>"));
  EXPECT_THAT(element(html, "section", "rounds"),
              HasSubstr("<tr><td>1</td><td>0.5</td><td>1.25</td><td>1.25</td><td>0.5</td><td>1200</td><td>2</td><td>1</"
                        "td><td>1000</td><td>2000</td>"));
}

TEST(Report, SumsTheRoundsWhileTheRunHasNotEnded) {
  const std::string numbers = element(render_report({small_run()}), "section", "numbers");
  EXPECT_THAT(numbers, HasSubstr(">To clients</th><td>4\u202fkB</td>"));
  EXPECT_THAT(numbers, HasSubstr(">Time</th><td>3.5\u202fs</td>"));  // 2 × (1.5 + 0.25)
  EXPECT_THAT(numbers, HasSubstr(">Status</th><td>not ended</td>"));
}

TEST(Report, DrawsACurveWhereItsNumbersAre) {
  // 0 % and 100 % at rounds 1 and 2 span the plot: x 64 … 456, y 232 … 12.
  RunData run = small_run();
  run.rounds[0].accuracy = 0;
  run.rounds[1].accuracy = 1;
  const std::string figure = element(render_report({run}), "figure", "accuracy");
  EXPECT_THAT(figure, HasSubstr(" d=\"M64 232L456 12\""));
  EXPECT_THAT(figure, HasSubstr("data-x=\"1 2\" data-y=\"0.00\u202f%|100.00\u202f%\""));
  EXPECT_THAT(figure, HasSubstr("first 0.00\u202f% at round 1, last 100.00\u202f% at round 2"));
}

TEST(Report, StatesThePrivacyPromiseAndWithholdsWhatItHides) {
  const std::string html = render_report({private_run()});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(sections_of(html), ElementsAre("curves", "privacy", "numbers", "cost", "rounds", "experiments"));
  EXPECT_THAT(html, HasSubstr("<p>epsilon 2.5 at delta 1e-05 for one client</p>"));
  EXPECT_THAT(element(html, "figure", "epsilon"), HasSubstr("last 2.5 at round 2"));
  for (const char* figure : {"signal-to-noise", "clip-norm", "clipped"}) EXPECT_THAT(element(html, "figure", figure), HasSubstr("role=\"img\"")) << figure;
  EXPECT_EQ(element(html, "figure", "training-loss"), "");
  EXPECT_EQ(element(html, "figure", "bytes"), "");
  EXPECT_THAT(html, Not(HasSubstr(">Traffic<")));
}

TEST(Report, ShadesTheExpectedBand) {
  RunData run = complete_run();
  run.rounds[0].accuracy = 0;
  run.rounds[1].accuracy = 1;
  // 0.7 … 0.8 of 220 units above 232: y from 232 − 176 = 56, 22 high.
  EXPECT_THAT(element(render_report({run}), "figure", "accuracy"),
              HasSubstr("<rect class=\"band\" x=\"64\" y=\"56\" width=\"392\" height=\"22\">"));
  EXPECT_THAT(element(render_report({run}), "figure", "loss"), Not(HasSubstr("class=\"band\"")));
}

TEST(Report, LeavesAGapWhereTheLossIsNotANumber) {
  RunData run = small_run();
  run.rounds = {round_of(1, 0.5, 2), round_of(2, 0.6, 1), round_of(3, 0.1, kNan), round_of(4, 0.1, 2),
                round_of(5, 0.1, 1)};
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  const std::string figure = element(html, "figure", "loss");
  // The axis 1 … 2 spans y 232 … 12, rounds 1 … 5 span x 64 … 456 in steps of 98.
  EXPECT_THAT(figure, HasSubstr(" d=\"M64 12L162 232M358 12L456 232\""));
  EXPECT_THAT(figure, HasSubstr("Gap: test loss is not finite at 1 point, round 3."));
}

TEST(Report, NotesThatEveryLossIsNotANumber) {
  RunData run = small_run();
  run.rounds = {round_of(1, 0.1, kNan), round_of(2, 0.1, std::numeric_limits<double>::infinity())};
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(element(html, "figure", "loss"), HasSubstr("not finite at 2 points, first at round 1."));
}

TEST(Report, DoesNotTakeAnAbandonedRoundForAMeasurement) {
  RunData run = small_run();
  run.rounds.push_back(round_of(3, 0.75, 0));
  run.rounds.back().abandoned = true;
  const std::string html = render_report({run});
  EXPECT_THAT(element(html, "figure", "training-loss"), HasSubstr("data-x=\"1 2\""));
  EXPECT_THAT(element(html, "figure", "outcomes-1"), HasSubstr("1 round was abandoned"));
}

TEST(Report, StacksOutcomesByReason) {
  RunData run = small_run();
  run.rounds[0].cohort = {{1, Outcome::accepted}, {2, Outcome::late}, {3, Outcome::late}, {4, Outcome::not_finite}};
  const std::string figure = element(render_report({run}), "figure", "outcomes-1");
  EXPECT_THAT(figure, HasSubstr("accepted 3</span>"));  // 1 in round 1, 2 in round 2
  EXPECT_THAT(figure, HasSubstr("late 2</span>"));
  EXPECT_THAT(figure, HasSubstr("not finite 1</span>"));
  EXPECT_THAT(figure, Not(HasSubstr("malformed")));
  EXPECT_THAT(figure, HasSubstr("<title>round 1: late 2</title>"));
}

TEST(Report, CountsClientsByAccuracy) {
  RunData run = complete_run();
  const std::string html = render_report({run});
  const std::string figure = element(html, "figure", "client-histogram-1");
  // Bins of 5 %: 0.5 is in "50", 0.6 in "60", 1.0 in the last one, "95". Mean of 0.5, 0.6, 1.0 is 0.7; nearest-rank
  // percentiles of three values: 10th the first, median the second, 90th the third.
  for (const char* bin : {"50: 1", "60: 1", "95: 1", "55: 0"})
    EXPECT_THAT(figure, HasSubstr("accuracy from … % " + std::string(bin) + "<")) << bin;
  EXPECT_THAT(figure, HasSubstr("Round 2, 3 clients: mean 70.00\u202f%, 10th percentile 50.00\u202f%, median "
                                "60.00\u202f%, 90th percentile 100.00\u202f%."));
}

TEST(Report, ShowsClassesOfTheLastEvaluation) {
  RunData run = complete_run();
  run.rounds[0].class_accuracy = {0, 0};
  const std::string html = render_report({run});
  EXPECT_THAT(element(html, "figure", "class-accuracy"), HasSubstr("class 0: 25.00\u202f%</title>"));
  EXPECT_THAT(element(html, "section", "classes"), HasSubstr("<tr><td>1</td><td>100.00\u202f%</td></tr>"));
}

TEST(Report, ShadesThePartition) {
  const std::string figure = element(render_report({complete_run()}), "figure", "labels-1");
  // Counts 30, 10, 0, 20 in ninths of the largest, rounded up: 9, 3, none, 6.
  EXPECT_THAT(
      figure,
      HasSubstr(
          "<rect class=\"h9\" x=\"64\" y=\"12\" width=\"196\" height=\"22\"><title>client 0, class 0: 30</title>"));
  EXPECT_THAT(figure, HasSubstr("<rect class=\"h3\" x=\"260\" y=\"12\""));
  EXPECT_THAT(
      figure,
      HasSubstr(
          "<rect class=\"h6\" x=\"260\" y=\"34\" width=\"196\" height=\"22\"><title>client 7, class 1: 20</title>"));
  EXPECT_THAT(figure, Not(HasSubstr("client 7, class 0")));
  EXPECT_THAT(figure, HasSubstr("100 clients, 2 of them shown. Examples a client: smallest 20, 10th percentile 21, "
                                "median 30, 90th percentile 39, largest 40."));
}

TEST(Report, JudgesTheExpectedBand) {
  RunData run = complete_run();
  const auto html_at = [&](double accuracy) {
    run.run["accuracy"] = accuracy;
    return element(render_report({run}), "header", "");
  };
  EXPECT_THAT(html_at(0.7), HasSubstr("✓ band met"));
  EXPECT_THAT(html_at(0.8), HasSubstr("✓ band met"));
  EXPECT_THAT(html_at(0.69), HasSubstr("✗ band missed</span>Outside the expected band, 1 point below: test accuracy "
                                       "69.00\u202f%, expected 70.00\u202f% to 80.00\u202f%."));
  EXPECT_THAT(html_at(0.9), HasSubstr("10 points above"));
  EXPECT_THAT(html_at(0.75), HasSubstr("Where the band comes from: a paper"));
  run.run["status"] = "interrupted";
  EXPECT_THAT(html_at(0.75), HasSubstr("… band open</span>Not judged yet: round 2 of 2"));
  run.run["status"] = "stopped_early";
  EXPECT_THAT(html_at(0.75), HasSubstr("✓ band met"));
  run.run["status"] = "failed";
  EXPECT_THAT(html_at(0.75), HasSubstr("✗ band missed"));
  run.run["status"] = "finished";
  run.experiment["expect"] = {{"metric", "loss"}, {"low", 0.1}, {"high", 0.4}, {"source", ""}};
  EXPECT_THAT(html_at(0.75), HasSubstr("0.1 above: test loss 0.5, expected 0.1 to 0.4."));
  run.run["loss"] = nullptr;
  run.rounds[1].loss = kNan;
  EXPECT_THAT(html_at(0.75), HasSubstr("test loss is not a number"));
}

TEST(Comparison, OverlaysTheRunsWithTheirOwnLooks) {
  RunData other = small_run("other");
  const std::string html = render_report({complete_run(), other});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_THAT(html, HasSubstr("<h1>Comparison of 2 runs</h1>"));
  const std::string figure = element(html, "figure", "accuracy");
  EXPECT_THAT(figure, HasSubstr("<path class=\"line c0\" d=\"M64 "));
  EXPECT_THAT(figure, HasSubstr("<path class=\"line c1\" stroke-dasharray=\"7 3\" d=\"M64 "));
  EXPECT_THAT(figure, HasSubstr("</svg>complete</span>"));
  EXPECT_THAT(figure, HasSubstr("</svg>other</span>"));
  for (const char* id : {"bytes-up", "bytes-down", "seconds-train", "accuracy-by-bytes", "accuracy-by-time"}) {
    EXPECT_NE(element(html, "figure", id), "") << id;
  }
}

TEST(Comparison, ListsTheJsonPathsThatDiffer) {
  RunData one = small_run("run"), two = small_run("run");
  two.experiment["trainer"]["learning_rate"] = 0.2;
  two.experiment["stages"] = {1, {{"clip", 3}}};
  const std::string section = element(render_report({one, two}), "section", "differences");
  EXPECT_THAT(section, HasSubstr("<code>trainer.learning_rate</code></th><td><code "
                                 "title=\"0.1\">0.1</code></td><td><code title=\"0.2\">0.2</code></td>"));
  EXPECT_THAT(section, HasSubstr("<code>stages.1.clip</code></th><td>–</td><td><code title=\"3\">3</code></td>"));
  EXPECT_THAT(section, Not(HasSubstr("trainer.name")));
  EXPECT_THAT(section, Not(HasSubstr("seed")));
  EXPECT_THAT(element(render_report({one, one}), "section", "differences"), HasSubstr("The experiments are the same."));
}

TEST(Comparison, TellsRunsOfOneNameApart) {
  RunData one = small_run("run"), two = small_run("run"), three = small_run("run");
  two.folder = "runs/second/";
  const auto views = report::make_views({one, two, three, small_run("last")});
  EXPECT_EQ(views[0].label, "run (run) #1");
  EXPECT_EQ(views[1].label, "run (second)");
  EXPECT_EQ(views[2].label, "run (run) #3");
  EXPECT_EQ(views[3].label, "last");
}

TEST(Comparison, SaysWhichModelsAreTheSame) {
  RunData one = complete_run("one"), two = complete_run("two"), three = complete_run("three");
  EXPECT_THAT(render_report({one, two}), HasSubstr("one and two ended with the same model, bit for bit."));
  three.run["model_sha256"] = std::string(64, 'b');
  EXPECT_THAT(render_report({one, three}), Not(HasSubstr("same model")));
}

TEST(Comparison, DrawsASharedPartitionOnce) {
  RunData one = complete_run("one"), two = complete_run("two"), three = complete_run("three");
  (*three.partition)["histogram"][0][0] = 31;
  const std::string section = element(render_report({one, two, three}), "section", "partition");
  EXPECT_EQ(count_of(section, "<figure"), 2U);
  EXPECT_THAT(section, HasSubstr("at each client: one, two</h3>"));
}

TEST(Report, StaysSmallWithTenThousandRounds) {
  RunData run = complete_run();
  run.rounds.clear();
  for (std::uint32_t i = 1; i <= 10'000; ++i) {
    RoundReport report = round_of(i, 0.5 + 0.4 * std::sin(i * 0.01), 1.0 + 1e-4 * i);
    report.client_accuracy = {0.1234, 0.2345, 0.3456};
    if (i % 3 == 0) report.cohort[1].outcome = Outcome::left;
    run.rounds.push_back(report);
  }
  run.rounds[4321].accuracy = 0.999;  // one spike
  const std::string html = render_report({run});
  EXPECT_EQ(markup_problem(html), "");
  EXPECT_LT(html.size(), 3'000'000U);
  EXPECT_THAT(element(html, "figure", "accuracy"), HasSubstr("99.90\u202f%|"));
  EXPECT_THAT(html, HasSubstr("Rounds as a table (one in 10; all are in metrics.jsonl)"));
  EXPECT_LT(render_report({run, run, run, run}).size(), 3'000'000U);
}

}  // namespace
}  // namespace fl
