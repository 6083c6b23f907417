#include "fl_core/ml/ghost_network.h"

#include <cmath>
#include <utility>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/params/kernels.h"

namespace fl::ghost {

using torch::Tensor;

namespace {

/// Norms come from sums of floats, shares and products are rounded to float: together less than this part of a norm.
constexpr double kRounding = 0x1p-18;
/// A gradient that is longer by this factor than it may be has a share so small that floats would lose it: it counts as infinite.
constexpr double kLongest = 0x1p100;

/// Each example's cross entropy derived by its logits: softmax minus one at the label.
Tensor loss_gradient(const Tensor& logits, std::span<const std::int64_t> labels) {
  Tensor flowing = at::softmax(logits, 1);
  const std::int64_t classes = logits.size(1);
  float* row = flowing.data_ptr<float>();
  for (const std::int64_t label : labels) {
    FL_CHECK(label >= 0 && label < classes, "a label outside of the classes");
    row[label] -= 1.0F;
    row += classes;
  }
  return flowing;
}

/// Shares that keep every example within `clip_norm`; counts those below 1.
Shares shares_of(std::span<const double> squares, double clip_norm, std::size_t& clipped) {
  const double limit = clip_norm * (1 - kRounding);
  Shares shares{torch::empty({static_cast<std::int64_t>(squares.size())}, torch::kFloat), {}};
  float* const values = shares.values.data_ptr<float>();
  std::vector<std::int64_t> refused;
  for (std::size_t i = 0; i < squares.size(); ++i) {
    const double norm = std::sqrt(squares[i]);
    values[i] = 1.0F;
    if (!(norm <= clip_norm * kLongest)) {  // NaN as well
      values[i] = 0.0F;
      refused.push_back(static_cast<std::int64_t>(i));
    } else if (norm > limit) {
      values[i] = static_cast<float>(limit / norm);
      ++clipped;
    }
  }
  if (!refused.empty()) shares.refused = torch::tensor(refused, torch::kLong);
  return shares;
}

}  // namespace

Tensor Shares::clean(const Tensor& rows, std::int64_t dim) const {
  return refused.defined() ? at::index_fill(rows, dim, refused, 0.0) : rows;
}

Tensor Shares::weigh(const Tensor& rows, std::int64_t dim) const {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(rows.dim()), 1);
  sizes[static_cast<std::size_t>(dim)] = values.size(0);
  return clean(rows, dim) * values.view(sizes);
}

void Shares::add_up(const Tensor& rows, Tensor sum) const {
  Tensor flat = sum.view({-1});
  at::mv_out(flat, clean(rows).t(), values);
}

void add_squares(const Tensor& rows, std::span<double> squares) {
  const Tensor dense = rows.contiguous();
  const auto width = static_cast<std::size_t>(dense.numel()) / squares.size();
  const float* row = dense.data_ptr<float>();
  for (double& square : squares) {
    square += kernels::squared_norm({row, width});
    row += width;
  }
}

bool columns_are_cheaper(std::int64_t n, std::int64_t m, std::int64_t time) {
  return 2.0 * static_cast<double>(time) * static_cast<double>(n + m) < static_cast<double>(n) * static_cast<double>(m);
}

double square_by_columns(const Tensor& a, const Tensor& g) {
  const Tensor inputs = a.to(torch::kDouble), gradients = g.to(torch::kDouble);
  const Tensor left = at::bmm(inputs.transpose(1, 2), inputs), right = at::bmm(gradients.transpose(1, 2), gradients);
  // A sum of squares; rounding may leave it a little below zero.
  const double square = at::mul(left, right).sum().item<double>();
  return square < 0 ? 0 : square;
}

Tensor Chain::forward(Tensor x, ForwardContext& context) {
  for (const auto& stage : stages_) x = stage->forward(x, context);
  return x;
}

Tensor Chain::backward(Tensor flowing, bool wanted, std::span<double> squares) {
  for (std::size_t i = stages_.size(); i-- > 0;) {
    if (!wanted && i < first_weights_) return {};
    flowing = stages_[i]->backward(flowing, wanted || i > first_weights_, squares);
  }
  return flowing;
}

void Chain::sum(const Shares& shares) {
  for (const auto& stage : stages_) stage->sum(shares);
}

std::size_t Network::clipped_backward(const Tensor& inputs, std::span<const std::int64_t> labels, double clip_norm,
                                      ForwardContext& context) {
  const torch::NoGradGuard no_grad;
  const Tensor logits = chain_.forward(inputs, context);
  std::vector<double> squares(labels.size());
  chain_.backward(loss_gradient(logits, labels), false, squares);
  std::size_t clipped = 0;
  chain_.sum(shares_of(squares, clip_norm, clipped));
  return clipped;
}

}  // namespace fl::ghost
