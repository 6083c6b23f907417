#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string_view>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/rng.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/array_dataset.h"
#include "fl_core/ml/datasets/data_file.h"

namespace fl {
namespace {

constexpr std::size_t kColumnLimit = 1U << 16U;
constexpr std::size_t kClassLimit = 10000;
/// The stream of the split: no client has this id, so that no client's own hold-out shares it.
constexpr std::uint64_t kNobody = ~std::uint64_t{0};

struct CsvOptions {
  std::string train;
  std::string test;
  std::optional<double> test_fraction;
  std::string label = "label";
  bool standardise = false;

  void fields(Fields& f) {
    f.text("train", train, "CSV file with a header line, gz or raw");
    f.text("test", test, "CSV file of the test part with the same columns; empty: take test_fraction of 'train'");
    f.optional_number("test_fraction", test_fraction, {0, 0.999, true}, "part of 'train' held out as the test part");
    f.text("label", label, "name of the column that holds the class; all other columns are numeric features");
    f.flag("standardise", standardise, "bring each feature to mean 0 and deviation 1 over the training part");
  }

  void check(const std::string& path) const {
    if (train.empty()) throw ConfigError(join_path(path, "train") + ": missing; expected the path of a CSV file");
    if (test.empty() == !test_fraction.has_value()) {
      throw ConfigError(join_path(path, "test") + ": got " + (test.empty() ? "no" : "both a") +
                        " test file and test_fraction; set exactly one of 'test' and 'test_fraction'");
    }
  }
};

struct Table {
  std::vector<std::string> features;  ///< names of the feature columns
  std::vector<float> values;          ///< rows × features
  std::vector<std::string> labels;    ///< one a row
  std::vector<std::size_t> lines;     ///< line of each row, counted from 1
};

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
  return text;
}

/// Splits one line at commas (RFC 4180; a quoted field may not contain a line break).
void split_line(std::string_view line, const std::string& where, std::vector<std::string>& fields) {
  fields.clear();
  std::size_t at = 0;
  for (;;) {
    std::string& field = fields.emplace_back();
    while (at < line.size() && (line[at] == ' ' || line[at] == '\t')) ++at;
    if (at < line.size() && line[at] == '"') {
      ++at;
      while (at < line.size() && (line[at] != '"' || (at + 1 < line.size() && line[at + 1] == '"'))) {
        field += line[at];
        at += line[at] == '"' ? 2 : 1;
      }
      if (at >= line.size()) throw ConfigError(where + ": a quote is not closed on its line");
      ++at;
      while (at < line.size() && line[at] != ',') {
        if (line[at] != ' ' && line[at] != '\t') throw ConfigError(where + ": text follows a closing quote");
        ++at;
      }
    } else {
      const std::size_t comma = std::min(line.find(',', at), line.size());
      field = trimmed(line.substr(at, comma - at));
      at = comma;
    }
    if (at >= line.size()) return;
    if (fields.size() >= kColumnLimit) {
      throw ConfigError(where + ": has more than " + std::to_string(kColumnLimit) + " columns");
    }
    ++at;
  }
}

float parse_feature(const std::string& text, const std::string& where) {
  const char* first = text.data() + (text.size() > 1 && text[0] == '+' ? 1 : 0);
  const char* last = text.data() + text.size();
  double value = 0;
  const auto [end, error] = std::from_chars(first, last, value);
  if (text.empty() || error != std::errc() || end != last || !std::isfinite(static_cast<float>(value))) {
    throw ConfigError(where + ": got '" + text.substr(0, 60) + "', expected a finite number");
  }
  return static_cast<float>(value);
}

/// Walks over the lines of a text that are not blank.
class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {
    if (text_.substr(0, 3) == "\xef\xbb\xbf") text_.remove_prefix(3);
  }
  bool next(std::string_view& line) {
    while (!text_.empty()) {
      const std::size_t end = std::min(text_.find('\n'), text_.size());
      line = text_.substr(0, end);
      text_.remove_prefix(std::min(end + 1, text_.size()));
      if (!line.empty() && line.back() == '\r') line.remove_suffix(1);
      ++number_;
      if (!trimmed(line).empty()) return true;
    }
    return false;
  }
  std::size_t number() const { return number_; }

 private:
  std::string_view text_;
  std::size_t number_ = 0;
};

/// Checks the header; returns the index of the label column.
std::size_t label_column(const std::vector<std::string>& columns, const std::string& label, const std::string& where) {
  std::set<std::string> seen;
  for (const std::string& column : columns) {
    if (column.empty()) throw ConfigError(where + ": a column has no name; the first line must name every column");
    if (!seen.insert(column).second) throw ConfigError(where + ": two columns are named '" + column + "'");
  }
  if (columns.size() < 2) throw ConfigError(where + ": has one column, expected at least one feature and the label");
  const auto found = std::find(columns.begin(), columns.end(), label);
  if (found == columns.end()) {
    throw ConfigError(where + ": no column is named '" + label + "' (option 'label')" + nearest_hint(label, columns));
  }
  return static_cast<std::size_t>(found - columns.begin());
}

Table read_table(const std::string& path, const std::string& label) {
  const std::string text = DataFile(path, "expected a CSV file with a header line; correct the path").text();
  Lines lines(text);
  std::string_view line;
  std::vector<std::string> columns, fields;
  if (!lines.next(line)) throw ConfigError(path + ": has no header line");
  const std::string header = path + ":" + std::to_string(lines.number());
  split_line(line, header, columns);
  const std::size_t label_at = label_column(columns, label, header);
  Table table;
  table.features = columns;
  table.features.erase(table.features.begin() + static_cast<std::ptrdiff_t>(label_at));
  while (lines.next(line)) {
    const std::string where = path + ":" + std::to_string(lines.number());
    split_line(line, where, fields);
    if (fields.size() != columns.size()) {
      throw ConfigError(where + ": has " + std::to_string(fields.size()) + " fields, the header names " +
                        std::to_string(columns.size()));
    }
    for (std::size_t i = 0; i < fields.size(); ++i) {
      if (i != label_at) table.values.push_back(parse_feature(fields[i], where + ":" + columns[i]));
    }
    if (fields[label_at].empty()) throw ConfigError(where + ":" + label + ": got '', expected a label");
    table.labels.push_back(fields[label_at]);
    table.lines.push_back(lines.number());
  }
  if (table.labels.empty()) throw ConfigError(path + ": has a header and no rows");
  return table;
}

std::optional<std::int64_t> as_integer(const std::string& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Classes in the order of their label values: by number when every label is an integer, else by bytes.
class Classes {
 public:
  Classes(const Table& table, const std::string& path, const std::string& label) {
    numeric_ = std::all_of(table.labels.begin(), table.labels.end(),
                           [](const std::string& text) { return as_integer(text).has_value(); });
    for (const std::string& text : table.labels) index_.emplace(key(text), 0);
    if (index_.size() > kClassLimit) {
      throw ConfigError(path + ": the column '" + label + "' has " + std::to_string(index_.size()) +
                        " different values, expected at most " + std::to_string(kClassLimit) +
                        " classes; is it a measurement?");
    }
    std::int32_t next = 0;
    for (auto& [value, number] : index_) number = next++;
  }

  std::int64_t size() const { return static_cast<std::int64_t>(index_.size()); }

  std::vector<std::int32_t> numbers_of(const Table& table, const std::string& path, const std::string& label) const {
    std::vector<std::int32_t> numbers;
    for (std::size_t row = 0; row < table.labels.size(); ++row) {
      const auto found = index_.find(key(table.labels[row]));
      if (found == index_.end()) {
        throw ConfigError(path + ":" + std::to_string(table.lines[row]) + ":" + label + ": got '" +
                          table.labels[row].substr(0, 60) + "', expected a label of the training file");
      }
      numbers.push_back(found->second);
    }
    return numbers;
  }

 private:
  using Key = std::pair<std::int64_t, std::string>;
  Key key(const std::string& text) const {
    const auto number = numeric_ ? as_integer(text) : std::nullopt;
    return number ? Key{*number, ""} : Key{0, text};
  }

  bool numeric_ = false;
  std::map<Key, std::int32_t> index_;
};

struct Part {
  std::vector<float> values;
  std::vector<std::int32_t> labels;
};

Part select(const Part& all, std::span<const std::uint32_t> rows, std::size_t width) {
  Part part;
  for (const std::uint32_t row : rows) {
    const auto first = all.values.begin() + static_cast<std::ptrdiff_t>(row * width);
    part.values.insert(part.values.end(), first, first + static_cast<std::ptrdiff_t>(width));
    part.labels.push_back(all.labels[row]);
  }
  return part;
}

/// Brings the columns to mean 0 and (population) deviation 1 over the training part; constant columns become 0 there.
void standardise(Part& train, Part& test, std::size_t width) {
  for (std::size_t column = 0; column < width; ++column) {
    double sum = 0, squares = 0;
    const auto rows = static_cast<double>(train.labels.size());
    for (std::size_t i = column; i < train.values.size(); i += width) sum += train.values[i];
    const double mean = sum / rows;
    for (std::size_t i = column; i < train.values.size(); i += width) {
      const double off = train.values[i] - mean;
      squares += off * off;
    }
    const double deviation = std::sqrt(squares / rows);
    const double scale = deviation > 0 ? 1 / deviation : 1;
    for (Part* part : {&train, &test}) {
      for (std::size_t i = column; i < part->values.size(); i += width) {
        part->values[i] = static_cast<float>((part->values[i] - mean) * scale);
      }
    }
  }
}

class Csv final : public DataSource {
 public:
  explicit Csv(const CsvOptions& options) : options_(options) {}

  DataSplits load(std::uint64_t seed) const override {
    Table table = read_table(options_.train, options_.label);
    const std::size_t width = table.features.size();
    const Classes classes(table, options_.train, options_.label);
    Part train{std::move(table.values), classes.numbers_of(table, options_.train, options_.label)};
    Part test = options_.test.empty() ? hold_out(train, width, seed) : read_test(table, classes);
    if (options_.standardise) standardise(train, test, width);
    ExampleShape shape;
    shape.input = {static_cast<std::int64_t>(width)};
    shape.classes = classes.size();
    const std::string& test_path = options_.test.empty() ? options_.train : options_.test;
    return {std::make_shared<ArrayDataset>(options_.train, shape, std::move(train.values), std::move(train.labels)),
            std::make_shared<ArrayDataset>(test_path, shape, std::move(test.values), std::move(test.labels))};
  }

  std::vector<std::string> files() const override {
    if (options_.test.empty()) return {options_.train};
    return {options_.train, options_.test};
  }

 private:
  Part read_test(const Table& train, const Classes& classes) const {
    Table table = read_table(options_.test, options_.label);
    if (table.features != train.features) {
      throw ConfigError(options_.test + ": its feature columns differ from those of " + options_.train +
                        "; expected the same names in the same order");
    }
    std::vector<std::int32_t> labels = classes.numbers_of(table, options_.test, options_.label);
    return {std::move(table.values), std::move(labels)};
  }

  /// Moves a random part of `all` out of it and returns it; both keep the order of the file.
  Part hold_out(Part& all, std::size_t width, std::uint64_t seed) const {
    const std::size_t rows = all.labels.size();
    const auto held = static_cast<std::size_t>(std::llround(*options_.test_fraction * static_cast<double>(rows)));
    if (held == 0 || held == rows) {
      throw ConfigError(options_.train + ": test_fraction takes " + std::to_string(held) + " of " +
                        std::to_string(rows) + " rows, expected to leave at least one in each part");
    }
    std::vector<std::uint32_t> order(rows);
    std::iota(order.begin(), order.end(), 0U);
    Rng(seed, Purpose::holdout, 0, kNobody).shuffle(order);
    const auto cut = order.begin() + static_cast<std::ptrdiff_t>(held);
    std::sort(order.begin(), cut);
    std::sort(cut, order.end());
    Part test = select(all, std::span(order).first(held), width);
    all = select(all, std::span(order).subspan(held), width);
    return test;
  }

  CsvOptions options_;
};

FL_REGISTER(data_sources(), "csv", Csv, CsvOptions, "a CSV file with numeric features and a label column");

}  // namespace
}  // namespace fl
