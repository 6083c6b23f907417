#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "simulations/cli/report_chart.h"

/// Bars and heat maps as inline SVG, in the frame of report_chart.h.
namespace fl::report {

struct BarSeries {
  std::string name;
  std::size_t colour = 0;
  std::vector<double> values;  ///< one a category; not finite: no bar
};

/// Bars side by side in each category.
struct BarChart {
  std::string id;
  std::string title;
  std::string x_name;
  Unit unit = Unit::count;
  double at_least = 0;  ///< the y axis reaches this far
  std::vector<std::string> categories;
  std::vector<BarSeries> series;
  std::string note;  ///< markup
};
/// A <figure>; empty without categories.
std::string render(const BarChart& chart);

/// What became of the members of cohorts, stacked by round. Many rounds share one bar, which then shows their mean.
struct StackedBars {
  std::string id;
  std::string title;
  std::vector<double> rounds;
  struct Layer {
    std::string name;
    std::string css_class;
    std::vector<double> counts;  ///< one a round
  };
  std::vector<Layer> layers;  ///< from the bottom
  std::string note;           ///< markup
};
std::string render(const StackedBars& chart);

/// Examples of each class (columns) at each client (rows), as shades. More than 100 classes share columns.
struct HeatMap {
  std::string id;
  std::string title;
  std::vector<std::uint64_t> clients;
  std::vector<std::vector<double>> counts;  ///< [client][class]
  std::string note;                         ///< markup
};
std::string render(const HeatMap& map);

}  // namespace fl::report
