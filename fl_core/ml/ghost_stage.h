#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "fl_core/ml/architecture.h"
#include "fl_core/ml/torch_model.h"

/// Gradients of single examples without autograd: each stage of an architecture runs forward, backward (which finds how long
/// every example's gradient is, where that is cheaper without forming it) and then sums the gradients with one share for each
/// example, from what it kept: no second backward. Ghost norms: Goodfellow 2015 (1510.01799), Li et al. 2022 (2110.05679); which
/// way is cheaper by shape: Bu et al. 2022 (2205.10683); sums from what was kept: Bu et al. 2023 (2210.00038).
namespace fl::ghost {

/// How much of each example's gradient goes into the sum. An example that is refused (its gradient is not finite) has share 0,
/// and nothing of it may be touched: 0 · NaN is NaN.
struct Shares {
  torch::Tensor values;   ///< float[rows]
  torch::Tensor refused;  ///< indices of refused rows; undefined when there are none

  /// `rows` with zeros for refused examples; the examples lie along dimension `dim`.
  torch::Tensor clean(const torch::Tensor& rows, std::int64_t dim = 0) const;
  /// clean(rows), each example times its share.
  torch::Tensor weigh(const torch::Tensor& rows, std::int64_t dim = 0) const;
  /// Σ share · row, written to `sum`. rows: float[rows, n]; sum: n floats of any shape, contiguous.
  void add_up(const torch::Tensor& rows, torch::Tensor sum) const;
};

/// The views that a stage reads its weights from and leaves its gradients in.
struct SlotViews {
  std::function<torch::Tensor(std::size_t slot)> weight;
  std::function<torch::Tensor(std::size_t slot)> gradient;
};

/// One stage. The calls come in turn: forward, backward, sum; what one of them kept, the last that needs it lets go.
/// Row i of every tensor belongs to example i alone. No gradients are recorded.
class Stage {
 public:
  virtual ~Stage() = default;
  virtual torch::Tensor forward(const torch::Tensor& x, ForwardContext& context) = 0;
  /// `flowing`: each example's loss derived by this stage's output; never written to. Adds the squared norm of each example's
  /// gradient of this stage's weights to `squares`. Returns the loss derived by the input, or nothing unless it is `wanted`.
  virtual torch::Tensor backward(const torch::Tensor& flowing, bool wanted, std::span<double> squares) = 0;
  /// Writes the shares' sum of the gradients.
  virtual void sum(const Shares&) {}
};

/// Stages in a row.
class Chain {
 public:
  /// Throws ConfigError at a stage whose examples depend on each other.
  Chain(const std::vector<StageSpec>& stages, const SlotViews& views, const Layout& layout);
  torch::Tensor forward(torch::Tensor x, ForwardContext& context);
  torch::Tensor backward(torch::Tensor flowing, bool wanted, std::span<double> squares);
  void sum(const Shares& shares);

 private:
  std::vector<std::unique_ptr<Stage>> stages_;
  std::size_t first_weights_ = 0;  ///< the first stage with weights; stages_.size() when there is none
};

std::unique_ptr<Stage> make_conv(const StageSpec& stage, const SlotViews& views);
std::unique_ptr<Stage> make_lstm(const StageSpec& stage, const SlotViews& views);

/// squares[i] += ‖row i‖², in double. rows: float[rows, …].
void add_squares(const torch::Tensor& rows, std::span<double> squares);

/// Whether ‖g aᵀ‖² of a: [n, time] and g: [m, time] costs less by the products of their columns than by forming it. The
/// products are taken in double (their sum may cancel), at twice the cost.
bool columns_are_cheaper(std::int64_t n, std::int64_t m, std::int64_t time);
/// Σ over b of ‖g_b a_bᵀ‖² = Σ over s, t of (a_s · a_t)(g_s · g_t). a: float[b, n, time], g: float[b, m, time].
double square_by_columns(const torch::Tensor& a, const torch::Tensor& g);

}  // namespace fl::ghost
