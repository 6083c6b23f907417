#include "simulations/cli/report_bars.h"

#include <algorithm>
#include <cmath>

#include "simulations/cli/report_text.h"

namespace fl::report {
namespace {

constexpr std::size_t kLabelLimit = 12;
constexpr std::size_t kStackLimit = 120;   // bars that can be told apart in the width
constexpr std::size_t kColumnLimit = 100;  // columns of a heat map
constexpr std::size_t kTitleLimit = 2000;  // cells; beyond it tooltips would make the page heavy
constexpr std::size_t kShades = 9;

std::string rect(const std::string& css_class, double x, double y, double width, double height,
                 const std::string& title) {
  const auto hundredths = [](double value) { return raw(std::round(value * 100) / 100); };
  std::string out = "<rect class=\"" + css_class + "\" x=\"" + hundredths(x) + "\" y=\"" + hundredths(y) +
                    "\" width=\"" + hundredths(width) + "\" height=\"" + hundredths(height) + "\"";
  return out + (title.empty() ? "/>" : "><title>" + escape(title) + "</title></rect>");
}

/// Category labels under the plot, thinned out so that they do not touch.
std::string draw_categories(const std::vector<std::string>& categories, const std::string& name) {
  std::size_t longest = 1;
  for (const std::string& category : categories) longest = std::max(longest, category.size());
  const std::size_t room = std::max<std::size_t>(2, longest > 4 ? kLabelLimit * 4 / longest : kLabelLimit);
  const std::size_t every = (categories.size() + room - 1) / room;
  const double width = (kRight - kLeft) / static_cast<double>(categories.size());
  std::string out = "<path class=\"axis\" d=\"M" + at(kLeft) + " " + at(kBottom) + "H" + at(kRight) + "\"/>";
  for (std::size_t i = 0; i < categories.size(); i += every) {
    out += "<text class=\"x\" x=\"" + at(kLeft + (static_cast<double>(i) + 0.5) * width) + "\" y=\"" +
           at(kBottom + 17) + "\">" + escape(categories[i]) + "</text>";
  }
  return out + "<text class=\"x name\" x=\"" + at((kLeft + kRight) / 2) + "\" y=\"" + at(kBottom + 34) + "\">" +
         escape(name) + "</text>";
}

}  // namespace

std::string render(const BarChart& chart) {
  if (chart.categories.empty() || chart.series.empty()) return "";
  double largest = chart.at_least;
  for (const BarSeries& series : chart.series) {
    for (const double value : series.values) largest = drawable(value) ? std::max(largest, value) : largest;
  }
  const Axis axis = make_axis(0, largest, chart.unit, 5, true);
  const double slot = (kRight - kLeft) / static_cast<double>(chart.categories.size());
  const double gap = std::min(slot * 0.15, 3.0);
  const double width = (slot - gap) / static_cast<double>(chart.series.size());

  Figure figure;
  figure.id = chart.id;
  figure.title = chart.title;
  figure.note = chart.note;
  figure.description = "Bar chart by " + chart.x_name + ". ";
  figure.body = draw_y_axis(axis);
  for (std::size_t s = 0; s < chart.series.size(); ++s) {
    const BarSeries& series = chart.series[s];
    const std::string css_class = "bar c" + std::to_string(series.colour);
    figure.description += series.name + ": ";
    for (std::size_t i = 0; i < std::min(series.values.size(), chart.categories.size()); ++i) {
      if (!drawable(series.values[i])) continue;
      const std::string value = chart.categories[i] + ": " + in_unit(series.values[i], chart.unit);
      figure.description += value + "; ";
      const double x = kLeft + slot * static_cast<double>(i) + gap / 2 + width * static_cast<double>(s);
      const double y = y_of(axis, series.values[i]);
      figure.body += rect(css_class, x, y, width, kBottom - y, series.name + ", " + chart.x_name + " " + value);
    }
    if (chart.series.size() > 1) figure.legend += box_key(series.name, css_class);
  }
  figure.body += draw_categories(chart.categories, chart.x_name);
  return render(figure);
}

std::string render(const StackedBars& chart) {
  const std::size_t rounds = chart.rounds.size();
  if (rounds == 0) return "";
  const std::size_t bars = std::min(rounds, kStackLimit);
  const auto begin_of = [&](std::size_t bar) { return bar * rounds / bars; };
  const auto mean = [&](const StackedBars::Layer& layer, std::size_t bar) {
    double sum = 0;
    for (std::size_t i = begin_of(bar); i < begin_of(bar + 1); ++i) sum += layer.counts[i];
    return sum / static_cast<double>(begin_of(bar + 1) - begin_of(bar));
  };
  double largest = 0;
  for (std::size_t bar = 0; bar < bars; ++bar) {
    double stack = 0;
    for (const StackedBars::Layer& layer : chart.layers) stack += mean(layer, bar);
    largest = std::max(largest, stack);
  }
  const Axis axis = make_axis(0, std::max(largest, 1.0), Unit::count, 5, true);
  const double slot = (kRight - kLeft) / static_cast<double>(bars);

  Figure figure;
  figure.id = chart.id;
  figure.title = chart.title;
  figure.note = chart.note;
  figure.description = "Stacked bars, clients by round and outcome. ";
  figure.body = draw_y_axis(axis);
  std::vector<std::string> categories(bars);
  for (std::size_t bar = 0; bar < bars; ++bar) {
    const double first = chart.rounds[begin_of(bar)], last = chart.rounds[begin_of(bar + 1) - 1];
    categories[bar] = count(first);
    const std::string place =
        first == last ? "round " + count(first) : "mean of rounds " + count(first) + " to " + count(last);
    double below = 0;
    for (const StackedBars::Layer& layer : chart.layers) {
      const double value = mean(layer, bar);
      if (value <= 0) continue;
      const double top = y_of(axis, below + value);
      figure.body += rect(layer.css_class, kLeft + slot * static_cast<double>(bar) + slot * 0.06, top, slot * 0.88,
                          y_of(axis, below) - top, place + ": " + layer.name + " " + number(value, 3));
      below += value;
    }
  }
  for (const StackedBars::Layer& layer : chart.layers) {
    double total = 0;
    for (const double value : layer.counts) total += value;
    if (total <= 0) continue;
    figure.legend += box_key(layer.name + " " + count(total), layer.css_class);
    figure.description += layer.name + " " + count(total) + "; ";
  }
  figure.body += draw_categories(categories, rounds > bars ? "round (each bar: the mean of several)" : "round");
  return render(figure);
}

std::string render(const HeatMap& map) {
  if (map.counts.empty() || map.counts[0].empty()) return "";
  const std::size_t rows = map.counts.size(), classes = map.counts[0].size();
  const std::size_t columns = std::min(classes, kColumnLimit);
  std::vector<std::vector<double>> cells(rows, std::vector<double>(columns));
  double largest = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::size_t label = 0; label < classes; ++label)
      cells[row][label * columns / classes] += map.counts[row][label];
    largest = std::max(largest, *std::max_element(cells[row].begin(), cells[row].end()));
  }
  const double row_height = std::clamp(300.0 / static_cast<double>(rows), 6.0, 22.0);
  const double column_width = (kRight - kLeft) / static_cast<double>(columns);
  const double bottom = kTop + row_height * static_cast<double>(rows);

  Figure figure;
  figure.id = map.id;
  figure.title = map.title;
  figure.note = map.note;
  figure.height = bottom + kHeight - kBottom;
  figure.description = "Heat map of " + count(static_cast<double>(rows)) + " clients by " +
                       count(static_cast<double>(classes)) + " classes; the largest cell has " + count(largest) +
                       " examples. The numbers are in the table below.";
  const auto label_at = [](double x, double y, const char* css_class, const std::string& text) {
    return "<text class=\"" + std::string(css_class) + "\" x=\"" + at(x) + "\" y=\"" + at(y) + "\">" + text + "</text>";
  };
  const std::size_t row_every = static_cast<std::size_t>(std::ceil(17 / row_height));
  figure.body = rect("heat-frame", kLeft, kTop, kRight - kLeft, bottom - kTop, "");
  for (std::size_t row = 0; row < rows; ++row) {
    const double y = kTop + row_height * static_cast<double>(row);
    const std::string client = std::to_string(map.clients[row]);
    if (row % row_every == 0) figure.body += label_at(kLeft - 7, y + row_height / 2, "y", client);
    for (std::size_t column = 0; column < columns; ++column) {
      const double value = cells[row][column];
      if (!(value > 0)) continue;
      const double shade = std::max(std::ceil(value / largest * kShades), 1.0);
      const std::string title =
          "client " + client + ", class " + std::to_string(column * classes / columns) + ": " + count(value);
      figure.body += rect("h" + fixed(shade, 0), kLeft + column_width * static_cast<double>(column), y, column_width,
                          row_height, rows * columns <= kTitleLimit ? title : "");
    }
  }
  const std::size_t column_every = (columns + kLabelLimit - 1) / kLabelLimit;
  for (std::size_t column = 0; column < columns; column += column_every) {
    figure.body += label_at(kLeft + column_width * (static_cast<double>(column) + 0.5), bottom + 17, "x",
                            std::to_string(column * classes / columns));
  }
  figure.body += label_at((kLeft + kRight) / 2, bottom + 34, "x name", "class");
  figure.legend = "<span class=\"key\">1<svg class=\"swatch ramp\" viewBox=\"0 0 90 10\" aria-hidden=\"true\">";
  for (std::size_t shade = 1; shade <= kShades; ++shade) {
    figure.legend += "<rect class=\"h" + std::to_string(shade) + "\" x=\"" + std::to_string((shade - 1) * 10) +
                     "\" width=\"10\" height=\"10\"/>";
  }
  figure.legend += "</svg>" + count(largest) + " examples</span>";
  return render(figure);
}

}  // namespace fl::report
