#include "simulations/cli/report_chart.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "simulations/cli/report_text.h"

namespace fl::report {
namespace {

constexpr std::size_t kColours = 8;
constexpr std::array<const char*, 5> kDashes = {"", "7 3", "2 3", "10 3 2 3", "14 4"};
constexpr std::size_t kTitleLimit = 60;  // up to this many points, each has a tooltip that needs no script
constexpr std::size_t kDotLimit = 15;    // up to this many, each is marked; more would hide the dash pattern
constexpr double kLogRatio = 1000;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();
  void add(double value) {
    if (!drawable(value)) return;
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

/// What one step of the axis' labels is counted in, and how that is written.
struct Scale {
  double factor = 1;
  std::string suffix;
};

Scale scale_of(double largest, Unit unit) {
  if (unit == Unit::percent) return {0.01, "\u202f%"};
  if (unit == Unit::seconds) {
    if (largest < 180) return {1, "\u202fs"};
    return largest < 10800 ? Scale{60, "\u202fmin"} : Scale{3600, "\u202fh"};
  }
  if (unit != Unit::bytes) return {};
  constexpr std::array<const char*, 7> kUnits = {"\u202fB",  "\u202fkB", "\u202fMB", "\u202fGB",
                                                 "\u202fTB", "\u202fPB", "\u202fEB"};
  std::size_t index = 0;
  double factor = 1;
  while (largest / factor >= 1000 && index + 1 < kUnits.size()) {
    factor *= 1000;
    ++index;
  }
  return {factor, kUnits[index]};
}

std::string tick_label(double value, double step, Unit unit, const Scale& scale) {
  const double magnitude = std::max(std::fabs(value), step);
  if (magnitude >= 1e7 || step < 1e-5) return number(value, 3) + scale.suffix;
  if (unit == Unit::count || step >= 1) return count(value) + scale.suffix;
  return fixed(value, static_cast<int>(std::ceil(-std::log10(step) - 1e-9))) + scale.suffix;
}

}  // namespace

bool drawable(double value) { return std::fabs(value) < 1e300; }

std::string at(double coordinate) { return raw(std::round(coordinate * 10) / 10); }

std::vector<Point> decimate(const std::vector<Point>& points, std::size_t limit) {
  if (points.size() <= limit || limit < 4) return points;
  const std::size_t inner = points.size() - 2;
  const std::size_t buckets = (limit - 2) / 2;
  std::vector<Point> kept = {points.front()};
  for (std::size_t bucket = 0; bucket < buckets; ++bucket) {
    const auto begin = points.begin() + static_cast<std::ptrdiff_t>(1 + bucket * inner / buckets);
    const auto end = points.begin() + static_cast<std::ptrdiff_t>(1 + (bucket + 1) * inner / buckets);
    auto lowest = end, highest = end;
    for (auto point = begin; point != end; ++point) {
      if (!drawable(point->y)) continue;
      if (lowest == end || point->y < lowest->y) lowest = point;
      if (highest == end || point->y > highest->y) highest = point;
    }
    if (lowest == end) {
      kept.push_back(*begin);
      continue;
    }
    kept.push_back(std::min(lowest, highest)[0]);
    if (lowest != highest) kept.push_back(std::max(lowest, highest)[0]);
  }
  kept.push_back(points.back());
  return kept;
}

double Axis::position(double value) const {
  if (logarithmic) return (std::log10(value) - std::log10(low)) / (std::log10(high) - std::log10(low));
  return (value - low) / (high - low);
}

Axis make_axis(double low, double high, Unit unit, int steps, bool widen) {
  if (!drawable(low) || !drawable(high) || low > high) low = 0, high = 1;
  if (high - low <= 1e-12 * std::max(std::fabs(low), std::fabs(high))) {
    const double pad = unit == Unit::count ? 1 : low == 0 ? 1 : std::fabs(low) * 0.05;
    low -= low == 0 ? 0 : pad;
    high += pad;
  }
  const Scale scale = scale_of(std::max(std::fabs(low), std::fabs(high)), unit);
  const double raw = (high - low) / scale.factor / steps;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  double step = power * (raw <= power * 1.0001 ? 1 : raw <= power * 2.0001 ? 2 : raw <= power * 5.0001 ? 5 : 10);
  if (unit == Unit::count) step = std::max(step, 1.0);
  Axis axis;
  const double slack = 1e-9;
  double first = std::ceil(low / scale.factor / step - slack), last = std::floor(high / scale.factor / step + slack);
  if (widen)
    first = std::floor(low / scale.factor / step + slack), last = std::ceil(high / scale.factor / step - slack);
  axis.low = widen ? first * step * scale.factor : low;
  axis.high = widen ? last * step * scale.factor : high;
  for (double i = first; i <= last && axis.ticks.size() < 50; ++i) {
    axis.ticks.push_back({i * step * scale.factor, tick_label(i * step, step, unit, scale)});
  }
  return axis;
}

Axis make_log_axis(double low, double high) {
  Axis axis;
  axis.logarithmic = true;
  const double first = std::floor(std::log10(low) + 1e-9),
               last = std::max(std::ceil(std::log10(high) - 1e-9), first + 1);
  axis.low = std::pow(10.0, first);
  axis.high = std::pow(10.0, last);
  const double every = std::ceil((last - first) / 6);
  for (double power = first; power <= last; power += every) {
    const double value = std::pow(10.0, power);
    axis.ticks.push_back({value, power >= -3 && power <= 5 ? number(value, 6) : "1e" + fixed(power, 0)});
  }
  return axis;
}

Look look_of(std::size_t n) { return {n % kColours, n % kDashes.size()}; }

double x_of(const Axis& axis, double value) { return kLeft + axis.position(value) * (kRight - kLeft); }
double y_of(const Axis& axis, double value) { return kBottom - axis.position(value) * (kBottom - kTop); }

std::string stroke(Look look) {
  const std::string dash = kDashes[look.dash % kDashes.size()];
  return "class=\"line c" + std::to_string(look.colour) + "\"" +
         (dash.empty() ? "" : " stroke-dasharray=\"" + dash + "\"");
}

std::string line_key(const std::string& name, Look look) {
  return "<span class=\"key\"><svg class=\"swatch\" viewBox=\"0 0 30 10\" aria-hidden=\"true\"><path " + stroke(look) +
         " d=\"M0 5h30\"/></svg>" + escape(name) + "</span>";
}

std::string box_key(const std::string& name, const std::string& css_class) {
  return "<span class=\"key\"><svg class=\"swatch box\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><rect class=\"" +
         css_class + "\" width=\"10\" height=\"10\"/></svg>" + escape(name) + "</span>";
}

std::string draw_y_axis(const Axis& axis) {
  std::string out;
  for (const Axis::Tick& tick : axis.ticks) {
    const std::string y = at(y_of(axis, tick.value));
    out += "<path class=\"grid\" d=\"M" + at(kLeft) + " " + y + "H" + at(kRight) + "\"/><text class=\"y\" x=\"" +
           at(kLeft - 7) + "\" y=\"" + y + "\">" + tick.label + "</text>";
  }
  return out;
}

std::string draw_x_axis(const Axis& axis, const std::string& name) {
  std::string out = "<path class=\"axis\" d=\"M" + at(kLeft) + " " + at(kBottom) + "H" + at(kRight) + "\"/>";
  for (const Axis::Tick& tick : axis.ticks) {
    out += "<text class=\"x\" x=\"" + at(x_of(axis, tick.value)) + "\" y=\"" + at(kBottom + 17) + "\">" + tick.label +
           "</text>";
  }
  return out + "<text class=\"x name\" x=\"" + at((kLeft + kRight) / 2) + "\" y=\"" + at(kBottom + 34) + "\">" +
         escape(name) + "</text>";
}

std::string render(const Figure& figure) {
  const std::string id = figure.id;
  std::string out = "<figure id=\"" + id + "\"><figcaption><h3>" + escape(figure.title) + "</h3>";
  if (!figure.legend.empty()) out += "<p class=\"legend\">" + figure.legend + "</p>";
  out += "</figcaption><svg viewBox=\"0 0 " + at(kWidth) + " " + at(figure.height) +
         "\" role=\"img\" aria-labelledby=\"" + id + "-t " + id + "-d\"" + figure.svg_attributes + "><title id=\"" +
         id + "-t\">" + escape(figure.title) + "</title><desc id=\"" + id + "-d\">" + escape(figure.description) +
         "</desc>" + figure.body + "</svg>";
  if (!figure.note.empty()) out += "<p class=\"note\">" + figure.note + "</p>";
  return out + "</figure>\n";
}

namespace {

/// "run: first 10.2 % at 1, last 84.9 % at 50, lowest 9.8 %, highest 85.1 %."
std::string describe(const Series& series, const LineChart& chart) {
  const Point* first = nullptr;
  const Point* last = nullptr;
  Range range;
  for (const Point& point : series.points) {
    if (!drawable(point.y)) continue;
    if (first == nullptr) first = &point;
    last = &point;
    range.add(point.y);
  }
  if (first == nullptr) return series.name + ": no finite value. ";
  const auto place = [&](const Point& point) {
    return in_unit(point.y, chart.unit) + " at " + chart.x_name + " " + in_unit(point.x, chart.x_unit);
  };
  return series.name + ": first " + place(*first) + ", last " + place(*last) + ", lowest " +
         in_unit(range.low, chart.unit) + ", highest " + in_unit(range.high, chart.unit) + ". ";
}

/// One path with a gap at each value that cannot be drawn, its values for the tooltip, and marks on points that have no
/// line to be seen by.
std::string draw(const Series& series, const LineChart& chart, const Axis& x_axis, const Axis& y_axis) {
  const std::vector<Point> points = decimate(series.points);
  std::string path, xs, x_texts, ys, dots;
  bool pen_down = false;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Point& point = points[i];
    xs += (xs.empty() ? "" : " ") + raw(point.x);
    if (chart.x_unit != Unit::count) x_texts += (x_texts.empty() ? "" : "|") + in_unit(point.x, chart.x_unit);
    ys += (ys.empty() ? "" : "|") + in_unit(point.y, chart.unit);
    if (!drawable(point.y)) {
      pen_down = false;
      continue;
    }
    const std::string x = at(x_of(x_axis, point.x)), y = at(y_of(y_axis, point.y));
    const bool alone = !pen_down && (i + 1 == points.size() || !drawable(points[i + 1].y));
    if (alone || points.size() <= kTitleLimit) {
      const bool marked = alone || points.size() <= kDotLimit;
      dots += "<circle class=\"" + (marked ? "dot c" + std::to_string(series.look.colour) : "hit") + "\" cx=\"" + x +
              "\" cy=\"" + y + "\" r=\"" +
              (alone    ? "3.5"
               : marked ? "2.5"
                        : "6") +
              "\"><title>" +
              escape(series.name + ", " + chart.x_name + " " + in_unit(point.x, chart.x_unit) + ": " +
                     in_unit(point.y, chart.unit)) +
              "</title></circle>";
    }
    path += (pen_down ? "L" : "M") + x + " " + y;
    pen_down = true;
  }
  if (path.empty()) return "";
  return "<path " + stroke(series.look) + " d=\"" + path + "\" data-name=\"" + escape(series.name) + "\" data-x=\"" +
         xs + (x_texts.empty() ? "" : "\" data-x-text=\"" + x_texts) + "\" data-y=\"" + ys + "\"/>" + dots;
}

std::string draw(const Ribbon& ribbon, const Axis& x_axis, const Axis& y_axis) {
  const std::vector<Point> low = decimate(ribbon.low), high = decimate(ribbon.high);
  std::string path;
  const auto add = [&](const Point& point) {
    if (!drawable(point.y)) return;
    path += (path.empty() ? "M" : "L") + at(x_of(x_axis, point.x)) + " " + at(y_of(y_axis, point.y));
  };
  for (const Point& point : high) add(point);
  for (auto point = low.rbegin(); point != low.rend(); ++point) add(*point);
  return path.empty() ? "" : "<path class=\"ribbon c" + std::to_string(ribbon.look.colour) + "\" d=\"" + path + "Z\"/>";
}

Axis y_axis_of(const LineChart& chart) {
  Range range;
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) range.add(point.y);
  }
  const bool positive = !range.empty() && range.low > 0;
  if (chart.may_be_logarithmic && positive && range.high / range.low >= kLogRatio)
    return make_log_axis(range.low, range.high);
  for (const Ribbon& ribbon : chart.ribbons) {
    for (const Point& point : ribbon.low) range.add(point.y);
    for (const Point& point : ribbon.high) range.add(point.y);
  }
  for (const Band& band : chart.bands) range.add(band.low), range.add(band.high);
  if (chart.from_zero) range.add(0);
  return make_axis(range.low, range.high, chart.unit, 5, true);
}

std::string note_on_gaps(const LineChart& chart) {
  std::string note;
  for (const Series& series : chart.series) {
    std::size_t gaps = 0;
    double first = 0;
    for (const Point& point : series.points) {
      if (drawable(point.y)) continue;
      if (gaps++ == 0) first = point.x;
    }
    if (gaps == 0) continue;
    note += (note.empty() ? "Gap: " : " Gap: ") + escape(series.name) + " is not finite at " +
            count(static_cast<double>(gaps)) + (gaps == 1 ? " point, " : " points, first at ") + escape(chart.x_name) +
            " " + in_unit(first, chart.x_unit) + ".";
  }
  return note;
}

}  // namespace

std::string render(const LineChart& chart) {
  Range xs;
  std::string description;
  for (const Series& series : chart.series) {
    for (const Point& point : series.points) xs.add(point.x);
    if (!series.points.empty()) description += describe(series, chart);
  }
  if (xs.empty()) return "";
  const Axis x_axis = make_axis(xs.low, xs.high, chart.x_unit, 6, false);
  const Axis y_axis = y_axis_of(chart);

  Figure figure;
  figure.id = chart.id;
  figure.title = chart.title;
  figure.description = "Line chart by " + chart.x_name + ". " + description;
  figure.note = note_on_gaps(chart);
  if (y_axis.logarithmic) figure.note += std::string(figure.note.empty() ? "" : " ") + "Logarithmic scale.";
  figure.svg_attributes = " class=\"curves\" data-x-name=\"" + escape(chart.x_name) + "\" data-x-low=\"" +
                          raw(x_axis.low) + "\" data-x-high=\"" + raw(x_axis.high) + "\"";
  figure.body = draw_y_axis(y_axis);
  const auto visible = [&](double y) { return std::clamp(y, kTop, kBottom); };
  for (const Band& band : chart.bands) {
    if (y_axis.logarithmic && (band.low <= 0 || band.high <= 0)) continue;
    const double top = visible(y_of(y_axis, band.high)), bottom = visible(y_of(y_axis, band.low));
    figure.body += "<rect class=\"band\" x=\"" + at(kLeft) + "\" y=\"" + at(top) + "\" width=\"" + at(kRight - kLeft) +
                   "\" height=\"" + at(std::max(bottom - top, 1.0)) + "\"><title>" + escape(band.name) +
                   "</title></rect>";
  }
  for (const Ribbon& ribbon : chart.ribbons) figure.body += draw(ribbon, x_axis, y_axis);
  for (const Series& series : chart.series) figure.body += draw(series, chart, x_axis, y_axis);
  figure.body += draw_x_axis(x_axis, chart.x_name);

  if (chart.series.size() > 1) {
    for (const Series& series : chart.series) figure.legend += line_key(series.name, series.look);
  }
  for (const Ribbon& ribbon : chart.ribbons)
    figure.legend += box_key(ribbon.name, "ribbon c" + std::to_string(ribbon.look.colour));
  for (const Band& band : chart.bands) figure.legend += box_key(band.name, "band");
  return render(figure);
}

}  // namespace fl::report
