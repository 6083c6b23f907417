#pragma once

#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "simulations/cli/report_text.h"

/// Line charts as inline SVG. Coordinates are those of a 480 × 270 view box; the page scales it.
namespace fl::report {

inline constexpr double kWidth = 480, kHeight = 270;
inline constexpr double kLeft = 64, kRight = 456, kTop = 12, kBottom = 232;
/// A curve is drawn with at most about this many points.
inline constexpr std::size_t kPointLimit = 800;

struct Point {
  double x = 0;
  double y = 0;  ///< not finite: a gap in the curve
};

/// At most about `limit` points, in order: the first, the last, and of each stretch between them the lowest and the
/// highest. A stretch without a finite value keeps one point, so that the gap stays.
std::vector<Point> decimate(const std::vector<Point>& points, std::size_t limit = kPointLimit);

/// An axis: what it covers and where it is labelled. In a logarithmic one, position() is linear in log10.
struct Axis {
  double low = 0;
  double high = 1;
  bool logarithmic = false;
  struct Tick {
    double value;
    std::string label;
  };
  std::vector<Tick> ticks;

  /// 0 at low, 1 at high.
  double position(double value) const;
};
/// Covers [low, high] with about `steps` steps of 1, 2 or 5 × 10^k in the unit's own scale, widened to whole steps if
/// `widen`. Infinite or exchanged bounds give [0, 1].
Axis make_axis(double low, double high, Unit unit, int steps, bool widen);
/// Decades; 0 < low <= high.
Axis make_log_axis(double low, double high);

/// How a curve or a bar looks: one of 8 colours and one of 5 dash patterns.
struct Look {
  std::size_t colour = 0;
  std::size_t dash = 0;
};
/// The look of the n-th run.
Look look_of(std::size_t n);

struct Series {
  std::string name;
  Look look;
  std::vector<Point> points;
};

/// A range of y that is shaded, such as what an experiment expects.
struct Band {
  double low = 0;
  double high = 0;
  std::string name;
};

/// A range of y for each x, shaded in the series' colour, such as the 10th to 90th percentile.
struct Ribbon {
  std::string name;
  Look look;
  std::vector<Point> low;  ///< same x as high
  std::vector<Point> high;
};

struct LineChart {
  std::string id;  ///< unique in the page
  std::string title;
  std::string x_name = "round";
  Unit x_unit = Unit::count;
  Unit unit = Unit::plain;
  bool may_be_logarithmic = false;  ///< it is, if all values are positive and span three decades
  bool from_zero = false;           ///< the y axis begins at 0
  std::vector<Series> series;
  std::vector<Band> bands;
  std::vector<Ribbon> ribbons;
};
/// A <figure>; empty if no series has a point.
std::string render(const LineChart& chart);

/// A <figure> around an SVG of kWidth × `height` with the frame that all charts share: title, legend, note, <title>,
/// <desc>. `legend`, `body` and `note` are markup; the other texts are escaped here.
struct Figure {
  std::string id;
  std::string title;
  std::string description;
  std::string legend;
  std::string body;
  std::string note;
  std::string svg_attributes;
  double height = kHeight;
};
std::string render(const Figure& figure);
/// Legend entry with a short line (dashed as the curve is) or a box.
std::string line_key(const std::string& name, Look look);
std::string box_key(const std::string& name, const std::string& css_class);
/// Class and dash attributes of a stroke.
std::string stroke(Look look);
/// Grid lines and labels of the y axis, and labels of the x axis with the axis' name.
std::string draw_y_axis(const Axis& axis);
std::string draw_x_axis(const Axis& axis, const std::string& name);
/// A coordinate with one decimal.
std::string at(double coordinate);
double x_of(const Axis& axis, double value);
double y_of(const Axis& axis, double value);
/// Is it a value that can be drawn: finite, and not so large that differences overflow.
bool drawable(double value);

}  // namespace fl::report
