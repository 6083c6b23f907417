#include "privacy/accounting/participation.h"

#include <algorithm>
#include <bit>
#include <string>

#include "fl_core/base/error.h"

namespace fl {
namespace {

constexpr std::uint32_t kMaxSteps = 1u << 24;
constexpr std::uint32_t kMaxTreeSteps = 1u << 17;

/// A best value for every demand on the free rounds at the end: `value` holds while at most `free` rounds after the
/// client's last one are asked for. A table has falling `free` and rising `value`.
struct Step {
  std::uint32_t free;
  std::int64_t value;
};
using Steps = std::vector<Step>;

/// What a client can reach in a row of rounds: at[c][a] for c > 0 participations, the first of them after at least a <
/// separation free rounds. Values leave out the row's own node.
struct Row {
  std::uint64_t size = 1;
  std::vector<std::vector<Steps>> at;
  std::uint64_t most() const { return at.size() - 1; }
};

/// Dynamic programming over dyadic rows: a row of 2^(l+1) is two equal rows of 2^l that keep the separation between
/// them.
class TreeSearch {
 public:
  TreeSearch(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps, bool right_nodes)
      : limit_(std::min<std::uint64_t>(participations, (steps + std::uint64_t{separation} - 1) / separation)),
        separation_(separation),
        steps_(steps),
        right_nodes_(right_nodes),
        limited_(participations < (steps + std::uint64_t{separation} - 1) / separation),
        best_(separation) {}

  double maximum();

 private:
  /// Without a limit on participations more are better, so no gap has room for another one: every 2 separation - 1
  /// rounds hold one.
  std::uint64_t fewest(std::uint64_t size) const { return limited_ ? 0 : size / (2 * std::uint64_t{separation_} - 1); }
  std::uint64_t most(std::uint64_t size) const { return std::min(limit_, (size + separation_ - 1) / separation_); }
  Row leaf() const;
  Row joined(const Row& left, const Row& right, bool top) const;
  void join_into(const Row& left, const Row& right, std::uint64_t count_left, std::uint64_t count_right,
                 std::uint32_t lead, std::int64_t nodes) const;
  void offer(std::uint32_t free, std::int64_t value) const { best_[free] = std::max(best_[free], value); }
  /// The best of what was offered, every `free` below `end`.
  Steps collect(std::uint32_t end) const;

  std::uint64_t limit_;
  std::uint32_t separation_;
  std::uint32_t steps_;
  bool right_nodes_;
  bool limited_;
  mutable std::vector<std::int64_t> best_;  ///< scratch: value by `free`, -1 for none
};

Row TreeSearch::leaf() const {
  Row row;
  row.at.resize(2);
  row.at[1].resize(separation_);
  row.at[1][0] = {{0, 0}};
  return row;
}

Steps TreeSearch::collect(std::uint32_t end) const {
  Steps steps;
  std::int64_t reached = -1;
  for (std::uint32_t free = end; free-- > 0;) {
    if (best_[free] > reached) {
      reached = best_[free];
      steps.push_back({free, reached});
    }
    best_[free] = -1;
  }
  return steps;
}

/// Offers all ways to have these counts left and right after `lead` free rounds; `nodes` is what the two rows' own
/// nodes add.
void TreeSearch::join_into(const Row& left, const Row& right, std::uint64_t count_left, std::uint64_t count_right,
                           std::uint32_t lead, std::int64_t nodes) const {
  const std::uint32_t last = separation_ - 1;
  if (count_left == 0) {
    const std::uint64_t rest = lead > left.size ? lead - left.size : 0;
    for (const Step& step : right.at[count_right][rest]) offer(step.free, step.value + nodes);
    return;
  }
  for (const Step& step : left.at[count_left][lead]) {
    if (count_right == 0) {
      offer(static_cast<std::uint32_t>(std::min<std::uint64_t>(last, step.free + right.size)), step.value + nodes);
      continue;
    }
    for (const Step& next : right.at[count_right][last - step.free]) offer(next.free, step.value + next.value + nodes);
  }
}

/// `top`: a row of the forest, of which only the total value matters and nothing comes before it. Without a limit its
/// count does not matter either and all is kept at count 1.
Row TreeSearch::joined(const Row& left, const Row& right, bool top) const {
  Row row;
  row.size = left.size + right.size;
  const std::uint64_t most_here = std::min(most(row.size), left.most() + right.most());
  row.at.resize((top && !limited_ ? 1 : most_here) + 1);
  for (auto& leads : row.at) leads.resize(top ? 1 : separation_);
  std::fill(best_.begin(), best_.end(), -1);
  const auto square = [](std::uint64_t count) { return static_cast<std::int64_t>(count * count); };
  const std::uint64_t fewest_here = std::max<std::uint64_t>(1, top ? 1 : fewest(row.size));
  // A participation in the row leaves less than the row free on either side of it.
  const auto room = static_cast<std::uint32_t>(std::min<std::uint64_t>(separation_, row.size));
  for (std::uint32_t lead = 0; lead < (top ? 1 : room); ++lead) {
    for (std::uint64_t count = fewest_here; count <= most_here; ++count) {
      const std::uint64_t from = std::max(count > right.most() ? count - right.most() : 0, top ? 0 : fewest(left.size));
      for (std::uint64_t count_left = from; count_left <= std::min(count, left.most()); ++count_left) {
        const std::uint64_t count_right = count - count_left;
        // In the forest the left row has its nodes counted, and every tree is a left node.
        const std::int64_t nodes =
            top ? square(count_right) : square(count_left) + (right_nodes_ ? square(count_right) : 0);
        join_into(left, right, count_left, count_right, lead, nodes);
      }
      if (!(top && !limited_)) row.at[count][lead] = collect(room);
    }
    if (top && !limited_) row.at[1][lead] = collect(room);
  }
  return row;
}

double TreeSearch::maximum() {
  const int height = std::bit_width(steps_);
  std::vector<Row> trees{leaf()};
  for (int level = 1; level < height; ++level) trees.push_back(joined(trees.back(), trees.back(), false));
  Row forest;
  forest.size = 0;
  forest.at.resize(1);
  for (int level = height - 1; level >= 0; --level) {
    if ((steps_ >> level & 1) != 0) forest = joined(forest, trees[static_cast<std::size_t>(level)], true);
  }
  std::int64_t maximum = 0;
  for (const auto& leads : forest.at) {
    if (!leads.empty() && !leads[0].empty()) maximum = std::max(maximum, leads[0].back().value);
  }
  return static_cast<double>(maximum);
}

void check_steps(std::uint32_t steps, std::uint32_t most) {
  if (steps <= most) return;
  throw ConfigError("rounds: " + std::to_string(steps) + "; expected at most " + std::to_string(most) +
                    " for a mechanism with correlated noise");
}

double search(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps, bool right_nodes) {
  FL_CHECK(separation >= 1, "separation >= 1");
  check_steps(steps, kMaxTreeSteps);
  if (participations == 0 || steps == 0) return 0;
  return TreeSearch(participations, std::min(separation, steps), steps, right_nodes).maximum();
}

}  // namespace

double tree_sensitivity_squared(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps) {
  return search(participations, separation, steps, true);
}

double prefix_tree_sensitivity_squared(std::uint64_t participations, std::uint32_t separation, std::uint32_t steps) {
  return search(participations, separation, steps, false);
}

std::vector<double> square_root_coefficients(std::uint32_t bandwidth) {
  FL_CHECK(bandwidth >= 1, "bandwidth >= 1");
  std::vector<double> coefficients(bandwidth, 1.0);
  for (std::uint32_t k = 1; k < bandwidth; ++k) coefficients[k] = coefficients[k - 1] * (2.0 * k - 1) / (2.0 * k);
  return coefficients;
}

double banded_sensitivity_squared(std::uint32_t bandwidth, std::uint64_t participations, std::uint32_t separation,
                                  std::uint32_t steps) {
  FL_CHECK(separation >= 1, "separation >= 1");
  check_steps(steps, kMaxSteps);
  const std::vector<double> coefficients = square_root_coefficients(bandwidth);
  double sum = 0;
  double lost = 0;  // Kahan: thousands of rows, and the result must not be low
  for (std::uint32_t row = 0; row < steps; ++row) {
    double moved = 0;
    for (std::uint64_t back = row % separation; back < bandwidth && back <= row; back += separation) {
      if ((row - back) / separation < participations) moved += coefficients[back];
    }
    const double term = moved * moved - lost;
    const double next = sum + term;
    lost = (next - sum) - term;
    sum = next;
  }
  return sum;
}

}  // namespace fl
