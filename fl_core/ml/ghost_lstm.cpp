#include <utility>

#include "fl_core/ml/ghost_stage.h"
#include "fl_core/params/kernels.h"

namespace fl::ghost {
namespace {

using torch::Tensor;

/// One layer, time first. Its gates are a linear map of [input, state before, 1, 1] at each step (weight_ih, weight_hh and two
/// biases), so that is the shape of an example's gradient: Σ over time of (gate gradient) ⊗ (input, state, 1, 1).
class Layer {
 public:
  Layer(std::span<const std::size_t> slots, std::int64_t hidden, const SlotViews& views) : hidden_(hidden) {
    for (const std::size_t slot : slots) {
      weights_.push_back(views.weight(slot));
      gradients_.push_back(views.gradient(slot));
    }
  }

  /// x: [time, rows, features] -> states [time, rows, hidden]
  Tensor forward(const Tensor& x) {
    const std::int64_t time = x.size(0), rows = x.size(1);
    input_ = x.contiguous();
    gates_ = at::addmm(weights_[2] + weights_[3], input_.view({time * rows, -1}), weights_[0].t()).view({time, rows, 4 * hidden_});
    states_ = torch::zeros({time + 1, rows, hidden_});
    cells_ = torch::zeros({time + 1, rows, hidden_});
    for (std::int64_t t = 0; t < time; ++t) {
      Tensor gate = gates_[t];
      gate.addmm_(states_[t], weights_[1].t());
      gate.narrow(1, 0, 2 * hidden_).sigmoid_();
      gate.narrow(1, 2 * hidden_, hidden_).tanh_();
      gate.narrow(1, 3 * hidden_, hidden_).sigmoid_();
      cells_[t + 1].copy_(part(gate, 1) * cells_[t] + part(gate, 0) * part(gate, 2));
      states_[t + 1].copy_(part(gate, 3) * cells_[t + 1].tanh());
    }
    return states_.narrow(0, 1, time);
  }

  /// flowing: [time, rows, hidden] -> [time, rows, features] where wanted
  Tensor backward(const Tensor& flowing, bool wanted, std::span<double> squares) {
    const std::int64_t time = input_.size(0), rows = input_.size(1);
    flowing_ = torch::empty_like(gates_);
    Tensor state = torch::zeros({rows, hidden_}), cell = torch::zeros({rows, hidden_});
    for (std::int64_t t = time; t-- > 0;) {
      const Tensor gate = gates_[t], in = part(gate, 0), forget = part(gate, 1), fresh = part(gate, 2), out = part(gate, 3);
      const Tensor shown = cells_[t + 1].tanh();
      state = state + flowing[t];
      cell = cell + at::tanh_backward(state * out, shown);
      Tensor into = flowing_[t];
      part(into, 0).copy_(at::sigmoid_backward(cell * fresh, in));
      part(into, 1).copy_(at::sigmoid_backward(cell * cells_[t], forget));
      part(into, 2).copy_(at::tanh_backward(cell * in, fresh));
      part(into, 3).copy_(at::sigmoid_backward(state * shown, out));
      cell = cell * forget;
      state = at::mm(into, weights_[1]);
    }
    gates_ = cells_ = Tensor();
    find_squares(squares);
    if (!wanted) return {};
    return at::mm(flowing_.view({time * rows, -1}), weights_[0]).view({time, rows, -1});
  }

  void sum(const Shares& shares) {
    const std::int64_t time = input_.size(0);
    const Tensor weighed = shares.weigh(std::exchange(flowing_, {}), 1).flatten(0, 1);
    const Tensor before = shares.clean(std::exchange(states_, {}).narrow(0, 0, time), 1).flatten(0, 1);
    at::mm_out(gradients_[0], weighed.t(), shares.clean(std::exchange(input_, {}), 1).flatten(0, 1));
    at::mm_out(gradients_[1], weighed.t(), before);
    for (std::size_t bias : {2, 3}) at::sum_out(gradients_[bias], weighed, {0});
  }

 private:
  /// Gate 0 … 3 (i, f, g, o) of [rows, 4 hidden].
  Tensor part(const Tensor& gates, std::int64_t which) const { return gates.narrow(1, which * hidden_, hidden_); }

  void find_squares(std::span<double> squares) const {
    const std::int64_t time = input_.size(0);
    const Tensor ones = torch::ones({time, input_.size(1), 2});
    // [rows, features + hidden + 2, time] and [rows, 4 hidden, time]
    const Tensor seen = at::cat({input_, states_.narrow(0, 0, time), ones}, 2).permute({1, 2, 0});
    const Tensor flowing = flowing_.permute({1, 2, 0});
    const bool by_columns = columns_are_cheaper(seen.size(1), flowing.size(1), time);
    for (std::size_t i = 0; i < squares.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      if (by_columns) {
        squares[i] += square_by_columns(seen.narrow(0, row, 1), flowing.narrow(0, row, 1));
      } else {
        const Tensor gradient = at::mm(flowing[row], seen[row].t());
        squares[i] += kernels::squared_norm({gradient.data_ptr<float>(), static_cast<std::size_t>(gradient.numel())});
      }
    }
  }

  std::int64_t hidden_;
  std::vector<Tensor> weights_, gradients_;  ///< weight_ih, weight_hh, bias_ih, bias_hh
  Tensor input_, gates_;                     ///< [time, rows, …]
  Tensor states_, cells_;                    ///< [time + 1, rows, hidden], zeros first
  Tensor flowing_;                           ///< gate gradients, [time, rows, 4 hidden]
};

class Lstm final : public Stage {
 public:
  Lstm(const StageSpec& stage, const SlotViews& views) : spec_(std::get<StageSpec::Lstm>(stage.kind)) {
    constexpr std::size_t kSlots = 4;
    for (std::size_t first = 0; first < stage.slots.size(); first += kSlots) {
      layers_.emplace_back(std::span(stage.slots).subspan(first, kSlots), spec_.hidden, views);
    }
  }

  Tensor forward(const Tensor& x, ForwardContext&) override {
    time_ = x.size(1);
    Tensor states = x.transpose(0, 1);
    for (Layer& layer : layers_) states = layer.forward(states);
    return spec_.whole_sequence ? states.transpose(0, 1).contiguous() : states.select(0, time_ - 1).contiguous();
  }
  Tensor backward(const Tensor& flowing, bool wanted, std::span<double> squares) override {
    Tensor states = spec_.whole_sequence ? flowing.transpose(0, 1) : torch::zeros({time_, flowing.size(0), spec_.hidden});
    if (!spec_.whole_sequence) states.select(0, time_ - 1).copy_(flowing);
    for (std::size_t i = layers_.size(); i-- > 0;) states = layers_[i].backward(states, wanted || i > 0, squares);
    return wanted ? states.transpose(0, 1).contiguous() : Tensor();
  }
  void sum(const Shares& shares) override {
    for (Layer& layer : layers_) layer.sum(shares);
  }

 private:
  StageSpec::Lstm spec_;
  std::vector<Layer> layers_;
  std::int64_t time_ = 0;
};

}  // namespace

std::unique_ptr<Stage> make_lstm(const StageSpec& stage, const SlotViews& views) { return std::make_unique<Lstm>(stage, views); }

}  // namespace fl::ghost
