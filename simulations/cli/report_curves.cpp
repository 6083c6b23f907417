#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "simulations/cli/report_bars.h"
#include "simulations/cli/report_view.h"

// The sections made of charts: what the model learned, what it cost, what became of the cohorts, classes and clients.
namespace fl::report {
namespace {

using PointsOf = std::function<std::vector<Point>(const RunData&)>;

struct Metric {
  std::string id;
  std::string name;
  PointsOf points;
};

PointsOf by_round(std::function<std::optional<double>(const RoundReport&)> value) {
  return [value](const RunData& run) {
    std::vector<Point> points;
    for (const RoundReport& report : run.rounds) {
      if (const auto y = value(report)) points.push_back({static_cast<double>(report.round), *y});
    }
    return points;
  };
}

PointsOf summed(std::function<double(const RoundReport&)> value) {
  return [value](const RunData& run) {
    if (hides_cohort(run)) return std::vector<Point>();
    double total = 0;
    return by_round([&](const RoundReport& report) { return std::optional(total += value(report)); })(run);
  };
}

/// An abandoned round trained nobody: its training loss and norm are no measurements.
PointsOf of_training(double RoundReport::*member) {
  return by_round(
      [member](const RoundReport& report) { return report.abandoned ? std::nullopt : std::optional(report.*member); });
}

/// Under a promise devices do not tell their losses.
PointsOf training_loss() {
  return by_round([](const RoundReport& report) {
    return report.abandoned || report.privacy ? std::nullopt : std::optional(report.training_loss);
  });
}

/// `frame` says what the chart looks like. One run: one chart of all metrics. Several: one chart a metric, of all runs.
std::string draw(const std::vector<View>& views, const LineChart& frame, const std::vector<Metric>& metrics) {
  if (views.size() == 1) {
    LineChart chart = frame;
    for (std::size_t i = 0; i < metrics.size(); ++i) {
      auto points = metrics[i].points(*views[0].data);
      if (!points.empty()) chart.series.push_back({metrics[i].name, look_of(i), std::move(points)});
    }
    return render(chart);
  }
  std::string out;
  for (const Metric& metric : metrics) {
    LineChart chart = frame;
    chart.id = metric.id;
    if (metrics.size() > 1) chart.title = frame.title + ": " + metric.name;
    for (const View& view : views) {
      auto points = metric.points(*view.data);
      if (!points.empty()) chart.series.push_back({view.label, view.look, std::move(points)});
    }
    out += render(chart);
  }
  return out;
}

LineChart frame_of(const std::string& id, const std::string& title, Unit unit) {
  LineChart chart;
  chart.id = id;
  chart.title = title;
  chart.unit = unit;
  return chart;
}

std::vector<Band> bands_on(const std::vector<View>& views, const std::string& metric) {
  std::vector<Band> bands;
  for (const View& view : views) {
    const auto band = expected_band(*view.data, metric);
    const auto same = [&](const Band& other) { return other.low == band->low && other.high == band->high; };
    if (band && std::none_of(bands.begin(), bands.end(), same)) bands.push_back(*band);
  }
  return bands;
}

/// Accuracy against a running total, for comparing runs whose rounds do not cost the same.
std::string accuracy_by(const std::vector<View>& views, const std::string& id, const std::string& x_name, Unit x_unit,
                        const std::function<double(const RoundReport&)>& cost) {
  LineChart chart = frame_of(id, "Test accuracy by " + x_name, Unit::percent);
  chart.x_name = x_name;
  chart.x_unit = x_unit;
  for (const View& view : views) {
    Series series{view.label, view.look, {}};
    double total = 0;
    for (const RoundReport& report : view.data->rounds) {
      total += cost(report);
      if (report.accuracy && drawable(total)) series.points.push_back({total, *report.accuracy});
    }
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  return render(chart);
}

double wall(const RoundReport& report) { return report.wall_seconds + report.wall_seconds_evaluation_alone; }

}  // namespace

std::string curves_section(const std::vector<View>& views) {
  const auto empty = [](const View& view) { return view.data->rounds.empty(); };
  if (std::all_of(views.begin(), views.end(), empty)) {
    return section("curves", "Learning", "<p>No round has ended yet: nothing to draw.</p>\n");
  }
  LineChart accuracy = frame_of("accuracy", "Test accuracy", Unit::percent),
            loss = frame_of("loss", "Test loss (nats an example)", Unit::plain);
  accuracy.bands = bands_on(views, "accuracy");
  loss.bands = bands_on(views, "loss");
  LineChart training = frame_of("training-loss", "Training loss (nats an example)", Unit::plain),
            norm = frame_of("update-norm", "Norm of the mean update (L2)", Unit::plain);
  loss.may_be_logarithmic = training.may_be_logarithmic = norm.may_be_logarithmic = true;
  return section(
      "curves", "Learning",
      grid(draw(views, accuracy,
                {{"accuracy", "test accuracy", by_round([](const RoundReport& report) { return report.accuracy; })}}) +
           draw(views, loss, {{"loss", "test loss", by_round([](const RoundReport& report) { return report.loss; })}}) +
           draw(views, training, {{"training-loss", "training loss", training_loss()}}) +
           draw(views, norm, {{"update-norm", "update norm", of_training(&RoundReport::update_norm)}})));
}

std::string cost_section(const std::vector<View>& views) {
  LineChart traffic = frame_of("bytes", "Traffic so far", Unit::bytes),
            seconds = frame_of("seconds", "Seconds a round", Unit::seconds);
  traffic.from_zero = seconds.from_zero = true;
  std::string figures =
      draw(views, traffic,
           {{"bytes-up", "from clients",
             summed([](const RoundReport& report) { return static_cast<double>(report.bytes_up); })},
            {"bytes-down", "to clients",
             summed([](const RoundReport& report) { return static_cast<double>(report.bytes_down); })}}) +
      draw(views, seconds,
           {{"seconds-train", "training and aggregation",
             by_round([](const RoundReport& report) { return std::optional(report.wall_seconds); })},
            {"seconds-evaluate", "evaluation", by_round([](const RoundReport& report) {
               return report.wall_seconds_evaluation == 0 ? std::nullopt
                                                          : std::optional(report.wall_seconds_evaluation);
             })}});
  if (views.size() > 1) {
    figures += accuracy_by(views, "accuracy-by-bytes", "bytes moved", Unit::bytes, [](const RoundReport& report) {
      return static_cast<double>(report.bytes_up) + static_cast<double>(report.bytes_down);
    });
    figures += accuracy_by(views, "accuracy-by-time", "time", Unit::seconds, wall);
  }
  return section("cost", "Traffic and time", grid(figures));
}

std::string privacy_section(const std::vector<View>& views) {
  const auto of_privacy = [](auto value) {
    return by_round([value](const RoundReport& report) -> std::optional<double> {
      if (!report.privacy) return std::nullopt;
      return value(*report.privacy);
    });
  };
  LineChart spent = frame_of("epsilon", "Privacy spent (ε)", Unit::plain), signal = frame_of("signal-to-noise", "Signal to noise of the mean update", Unit::plain),
            clip = frame_of("clip-norm", "Clip norm (L2)", Unit::plain), clipped = frame_of("clipped", "Updates that were clipped (noisy)", Unit::percent);
  spent.from_zero = signal.from_zero = clip.from_zero = true;
  std::string words;
  for (const View& view : views) {
    const std::string sentence = text_at(view.data->run, "privacy.sentence");
    if (!sentence.empty()) words += "<p>" + (views.size() > 1 ? "<strong>" + escape(view.label) + "</strong>: " : "") + escape(sentence) + "</p>\n";
  }
  const std::string charts = draw(views, spent, {{"epsilon", "ε", of_privacy([](const PrivacyReport& p) { return std::optional(p.epsilon); })}}) +
                             draw(views, signal, {{"signal-to-noise", "signal to noise", of_privacy([](const PrivacyReport& p) { return p.signal_to_noise; })}}) +
                             draw(views, clip, {{"clip-norm", "clip norm", of_privacy([](const PrivacyReport& p) { return p.clip_norm > 0 ? std::optional(p.clip_norm) : std::nullopt; })}}) +
                             draw(views, clipped, {{"clipped", "clipped", of_privacy([](const PrivacyReport& p) { return p.clipped_fraction; })}});
  return section("privacy", "Privacy", words + grid(charts));
}

std::string outcomes_section(const std::vector<View>& views) {
  std::string figures;
  for (std::size_t v = 0; v < views.size(); ++v) {
    StackedBars chart;
    chart.id = "outcomes-" + std::to_string(v + 1);
    chart.title = views.size() == 1 ? "Clients of each cohort" : "Clients of each cohort: " + views[v].label;
    for (std::size_t i = 0; i < kOutcomes; ++i) {
      std::string name = outcome_name(static_cast<Outcome>(i));
      std::replace(name.begin(), name.end(), '_', ' ');
      chart.layers.push_back({name, "bar o" + std::to_string(i), {}});
    }
    bool all_accepted = true;
    double abandoned = 0;
    for (const RoundReport& report : views[v].data->rounds) {
      chart.rounds.push_back(report.round);
      std::array<double, kOutcomes> counts{};
      for (const ClientOutcome& member : report.cohort) ++counts.at(static_cast<std::size_t>(member.outcome));
      for (std::size_t i = 0; i < kOutcomes; ++i) chart.layers[i].counts.push_back(counts[i]);
      all_accepted = all_accepted && counts[0] == static_cast<double>(report.cohort.size());
      abandoned += report.abandoned ? 1 : 0;
    }
    if (all_accepted && abandoned == 0) continue;
    if (abandoned > 0)
      chart.note = count(abandoned) + (abandoned == 1 ? " round was" : " rounds were") +
                   " abandoned: too few updates, the model did not move.";
    figures += render(chart);
  }
  return section("outcomes", "Cohorts", grid(figures));
}

std::string classes_section(const std::vector<View>& views) {
  constexpr std::size_t kClassLimit = 1000;
  BarChart chart;
  chart.id = "class-accuracy";
  chart.title = "Test accuracy of each class, last evaluation";
  chart.x_name = "class";
  chart.unit = Unit::percent;
  chart.at_least = 1;
  std::vector<std::string> header = {"class"};
  std::size_t classes = 0;
  for (const View& view : views) {
    const RoundReport* report = last_with(*view.data, &RoundReport::class_accuracy);
    if (report == nullptr) continue;
    chart.series.push_back({view.label, views.size() == 1 ? 0 : view.look.colour, report->class_accuracy});
    chart.note += (chart.note.empty() ? "" : " · ") + (views.size() == 1 ? "" : escape(view.label) + ": ") + "Round " +
                  count(report->round);
    header.push_back(views.size() == 1 ? "accuracy" : view.label);
    classes = std::max(classes, report->class_accuracy.size());
  }
  std::vector<std::vector<std::string>> rows;
  for (std::size_t i = 0; i < std::min(classes, kClassLimit); ++i) {
    chart.categories.push_back(std::to_string(i));
    rows.push_back({std::to_string(i)});
    for (const BarSeries& series : chart.series)
      rows.back().push_back(i < series.values.size() ? percent(series.values[i]) : "");
  }
  if (rows.empty()) return "";
  return section("classes", "Classes",
                 grid(render(chart)) + details_table("Accuracy of each class as a table", header, rows));
}

namespace {

/// How many clients fall into each twentieth of the accuracies; 100 % belongs to the last.
std::string client_histogram(const View& view, std::size_t index, bool alone) {
  constexpr std::size_t kBins = 20;
  const RoundReport* report = last_with(*view.data, &RoundReport::client_accuracy);
  if (report == nullptr) return "";
  const std::vector<double> values = client_accuracies(*report);
  if (values.empty()) return "";
  BarChart chart;
  chart.id = "client-histogram-" + std::to_string(index + 1);
  chart.title = "Clients by accuracy on their own held-out examples" + (alone ? "" : ": " + view.label);
  chart.x_name = "accuracy from … %";
  BarSeries bars{"clients", alone ? 0 : view.look.colour, std::vector<double>(kBins, 0.0)};
  double sum = 0;
  for (const double value : values) {
    const double bin = std::clamp(std::floor(value * kBins + 1e-9), 0.0, static_cast<double>(kBins - 1));
    ++bars.values[static_cast<std::size_t>(bin)];
    sum += value;
  }
  for (std::size_t bin = 0; bin < kBins; ++bin) chart.categories.push_back(std::to_string(bin * 100 / kBins));
  chart.series.push_back(std::move(bars));
  chart.note = "Round " + count(report->round) + ", " + count(static_cast<double>(values.size())) + " clients: mean " +
               percent(sum / static_cast<double>(values.size())) + ", 10th percentile " +
               percent(percentile(values, 0.1)) + ", median " + percent(percentile(values, 0.5)) +
               ", 90th percentile " + percent(percentile(values, 0.9)) + ".";
  return render(chart);
}

/// One of the numbers of a round's distribution, when it was measured.
PointsOf of_clients(const std::function<double(const std::vector<double>&)>& number_of) {
  return by_round([number_of](const RoundReport& report) -> std::optional<double> {
    const std::vector<double> values = client_accuracies(report);
    if (values.empty()) return std::nullopt;
    return number_of(values);
  });
}

}  // namespace

std::string clients_section(const std::vector<View>& views) {
  std::string figures;
  for (std::size_t v = 0; v < views.size(); ++v) figures += client_histogram(views[v], v, views.size() == 1);
  if (figures.empty()) return "";
  const PointsOf mean = of_clients([](const std::vector<double>& values) {
    double sum = 0;
    for (const double value : values) sum += value;
    return sum / static_cast<double>(values.size());
  });
  const PointsOf low = of_clients([](const std::vector<double>& values) { return percentile(values, 0.1); });
  const PointsOf high = of_clients([](const std::vector<double>& values) { return percentile(values, 0.9); });
  LineChart chart = frame_of("client-accuracy", "Accuracy on clients' held-out examples", Unit::percent);
  if (views.size() == 1)
    chart.ribbons.push_back({"10th to 90th percentile", look_of(0), low(*views[0].data), high(*views[0].data)});
  figures += draw(
      views, chart,
      {{"client-mean", "mean", mean}, {"client-p10", "10th percentile", low}, {"client-p90", "90th percentile", high}});
  return section("clients", "Clients", grid(figures));
}

}  // namespace fl::report
