#include <array>
#include <string>
#include <tuple>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/ml/ghost_stage.h"
#include "fl_core/ml/torch_max_pool.h"
#include "fl_core/params/kernels.h"

namespace fl::ghost {

using torch::Tensor;

namespace {

/// gᵢ = fᵢ ⊗ aᵢ (and fᵢ for the bias) for input a and flowing gradient f, so ‖gᵢ‖² = ‖fᵢ‖² (‖aᵢ‖² + 1).
class Linear final : public Stage {
 public:
  Linear(const StageSpec& stage, const SlotViews& views)
      : weight_(views.weight(stage.slots[0])), weight_gradient_(views.gradient(stage.slots[0])) {
    if (stage.slots.size() < 2) return;
    bias_ = views.weight(stage.slots[1]);
    bias_gradient_ = views.gradient(stage.slots[1]);
  }

  Tensor forward(const Tensor& x, ForwardContext&) override {
    input_ = x;
    return bias_.defined() ? at::addmm(bias_, x, weight_.t()) : at::mm(x, weight_.t());
  }
  Tensor backward(const Tensor& flowing, bool wanted, std::span<double> squares) override {
    std::vector<double> inputs(squares.size()), outputs(squares.size());
    add_squares(input_, inputs);
    add_squares(flowing, outputs);
    for (std::size_t i = 0; i < squares.size(); ++i) squares[i] += outputs[i] * (inputs[i] + (bias_.defined() ? 1 : 0));
    flowing_ = flowing;
    return wanted ? at::mm(flowing, weight_) : Tensor();
  }
  void sum(const Shares& shares) override {
    const Tensor weighed = shares.weigh(std::exchange(flowing_, {}));
    at::mm_out(weight_gradient_, weighed.t(), shares.clean(std::exchange(input_, {})));
    if (bias_.defined()) at::sum_out(bias_gradient_, weighed, {0});
  }

 private:
  Tensor weight_, bias_, weight_gradient_, bias_gradient_;
  Tensor input_, flowing_;
};

class Activation final : public Stage {
 public:
  using Kind = StageSpec::Activation::Kind;
  /// `overwrites`: the input is nobody else's, so a ReLU needs no memory of its own.
  Activation(Kind kind, bool overwrites) : kind_(kind), overwrites_(overwrites) {}

  Tensor forward(const Tensor& x, ForwardContext&) override {
    switch (kind_) {
      case Kind::relu: {
        Tensor y = x;
        return kept_ = overwrites_ ? at::relu_(y) : at::relu(x);
      }
      case Kind::relu6: kept_ = x; return at::hardtanh(x, 0, 6);
      case Kind::gelu: kept_ = x; return at::gelu(x);
      case Kind::tanh: return kept_ = at::tanh(x);
    }
    FL_CHECK(false, "an activation that nobody runs");
  }
  Tensor backward(const Tensor& flowing, bool, std::span<double>) override {
    const Tensor kept = std::exchange(kept_, {});
    switch (kind_) {
      case Kind::relu: return at::threshold_backward(flowing, kept, 0);
      case Kind::relu6: return at::hardtanh_backward(flowing, kept, 0, 6);
      case Kind::gelu: return at::gelu_backward(flowing, kept);
      case Kind::tanh: return at::tanh_backward(flowing, kept);
    }
    FL_CHECK(false, "an activation that nobody runs");
  }

 private:
  Kind kind_;
  bool overwrites_;
  Tensor kept_;
};

class Pool final : public Stage {
 public:
  explicit Pool(const StageSpec::Pool& spec)
      : spec_(spec), kernel_{spec.kernel, spec.kernel}, stride_{spec.stride, spec.stride}, padding_{spec.padding, spec.padding} {}

  Tensor forward(const Tensor& x, ForwardContext&) override {
    input_ = x;
    if (spec_.global) return at::mean(x, {2, 3});
    if (!spec_.max) return at::avg_pool2d(x, kernel_, stride_, padding_);
    ours_ = MaxPool::covers(x, spec_.kernel, spec_.stride, spec_.padding);
    Tensor y;
    if (ours_) {
      MaxPool::Result result = MaxPool{spec_.kernel, spec_.stride}.forward(x, true);
      indices_ = std::move(result.places);
      return result.values;
    }
    std::tie(y, indices_) = at::max_pool2d_with_indices(x, kernel_, stride_, padding_);
    return y;
  }
  Tensor backward(const Tensor& flowing, bool, std::span<double>) override {
    const Tensor input = std::exchange(input_, {});
    if (spec_.global) {
      const double area = static_cast<double>(input.size(2) * input.size(3));
      return (flowing / area).view({input.size(0), input.size(1), 1, 1}).expand_as(input).contiguous();
    }
    if (!spec_.max) return at::avg_pool2d_backward(flowing, input, kernel_, stride_, padding_, false, true, c10::nullopt);
    if (ours_) return MaxPool{spec_.kernel, spec_.stride}.backward(flowing, std::exchange(indices_, {}), input.sizes());
    const std::array<std::int64_t, 2> dilation{1, 1};
    return at::max_pool2d_with_indices_backward(flowing, input, kernel_, stride_, padding_, dilation, false,
                                                std::exchange(indices_, {}));
  }

 private:
  StageSpec::Pool spec_;
  std::array<std::int64_t, 2> kernel_, stride_, padding_;
  Tensor input_, indices_;
  bool ours_ = false;  ///< indices_ are MaxPool's places
};

class Flatten final : public Stage {
 public:
  Tensor forward(const Tensor& x, ForwardContext&) override {
    sizes_ = x.sizes().vec();
    return at::flatten(x, 1);
  }
  Tensor backward(const Tensor& flowing, bool, std::span<double>) override { return flowing.reshape(sizes_); }

 private:
  std::vector<std::int64_t> sizes_;
};

class Dropout final : public Stage {
 public:
  explicit Dropout(double probability) : probability_(probability) {}

  Tensor forward(const Tensor& x, ForwardContext& context) override {
    if (probability_ == 0) return x;
    mask_ = dropout_mask(x.sizes(), probability_, context.rng);
    return x * mask_;
  }
  Tensor backward(const Tensor& flowing, bool, std::span<double>) override {
    return probability_ == 0 ? flowing : flowing * std::exchange(mask_, {});
  }

 private:
  double probability_;
  Tensor mask_;
};

/// An example's gradient has two floats a channel, so it is formed: Σ f·x̂ and Σ f over the channel's elements.
class GroupNorm final : public Stage {
 public:
  GroupNorm(const StageSpec& stage, const SlotViews& views)
      : spec_(std::get<StageSpec::GroupNorm>(stage.kind)),
        weight_(views.weight(stage.slots[0])),
        bias_(views.weight(stage.slots[1])),
        weight_gradient_(views.gradient(stage.slots[0])),
        bias_gradient_(views.gradient(stage.slots[1])) {}

  Tensor forward(const Tensor& x, ForwardContext&) override {
    input_ = x.contiguous();
    Tensor y;
    std::tie(y, mean_, scale_) =
        at::native_group_norm(input_, weight_, bias_, x.size(0), spec_.channels, area(), spec_.groups, spec_.epsilon);
    return y;
  }
  Tensor backward(const Tensor& flowing, bool wanted, std::span<double> squares) override {
    const Tensor input = std::exchange(input_, {}), dense = flowing.contiguous();
    const std::int64_t rows = input.size(0), each = input.numel() / rows / spec_.channels;
    const Tensor grouped = input.view({rows, spec_.groups, -1});
    const Tensor normal = (grouped - mean_.view({rows, spec_.groups, 1})) * scale_.view({rows, spec_.groups, 1});
    const Tensor by_channel = dense.view({rows, spec_.channels, each});
    weight_gradients_ = (by_channel * normal.view({rows, spec_.channels, each})).sum(2);
    bias_gradients_ = by_channel.sum(2);
    add_squares(weight_gradients_, squares);
    add_squares(bias_gradients_, squares);
    if (!wanted) return {};
    return std::get<0>(at::native_group_norm_backward(dense, input, mean_, scale_, weight_, rows, spec_.channels, each,
                                                      spec_.groups, {true, false, false}));
  }
  void sum(const Shares& shares) override {
    shares.add_up(std::exchange(weight_gradients_, {}), weight_gradient_);
    shares.add_up(std::exchange(bias_gradients_, {}), bias_gradient_);
  }

 private:
  std::int64_t area() const { return input_.numel() / input_.size(0) / spec_.channels; }

  StageSpec::GroupNorm spec_;
  Tensor weight_, bias_, weight_gradient_, bias_gradient_;
  Tensor input_, mean_, scale_, weight_gradients_, bias_gradients_;
};

/// An example's gradient has a row for each token that occurs in it: what flows back to all its places, added.
class Embedding final : public Stage {
 public:
  Embedding(const StageSpec& stage, const SlotViews& views)
      : weight_(views.weight(stage.slots[0])), gradient_(views.gradient(stage.slots[0])) {}

  Tensor forward(const Tensor& x, ForwardContext&) override {
    tokens_ = x.to(torch::kLong).contiguous();
    return at::embedding(weight_, tokens_);
  }
  Tensor backward(const Tensor& flowing, bool, std::span<double> squares) override {
    flowing_ = flowing.contiguous();
    std::vector<double> table(static_cast<std::size_t>(weight_.numel()));
    for (std::size_t i = 0; i < squares.size(); ++i) {
      each_place(i, [&](std::size_t first, const float* from, std::size_t width) {
        for (std::size_t k = 0; k < width; ++k) table[first + k] += static_cast<double>(from[k]);
      });
      // Taken out as they are counted, so that a token's second place adds nothing and the table is empty again.
      each_place(i, [&](std::size_t first, const float*, std::size_t width) {
        for (std::size_t k = 0; k < width; ++k) {
          const double value = std::exchange(table[first + k], 0.0);
          squares[i] += value * value;
        }
      });
    }
    return {};
  }
  void sum(const Shares& shares) override {
    gradient_.zero_();
    float* const into = gradient_.data_ptr<float>();
    const float* const share = shares.values.data_ptr<float>();
    for (std::size_t i = 0; i < static_cast<std::size_t>(shares.values.numel()); ++i) {
      if (share[i] == 0) continue;
      each_place(i, [&](std::size_t first, const float* from, std::size_t width) {
        kernels::axpy(share[i], {from, width}, {into + first, width});
      });
    }
    tokens_ = flowing_ = Tensor();
  }

 private:
  /// visit(offset of the token's row in the table, what flows back to the place, floats of a row)
  template <class Visit>
  void each_place(std::size_t example, Visit visit) const {
    const auto width = static_cast<std::size_t>(weight_.size(1));
    const auto places = static_cast<std::size_t>(tokens_.numel() / tokens_.size(0));
    const std::int64_t* token = tokens_.data_ptr<std::int64_t>() + example * places;
    const float* from = flowing_.data_ptr<float>() + example * places * width;
    for (std::size_t place = 0; place < places; ++place, ++token, from += width) {
      visit(static_cast<std::size_t>(*token) * width, from, width);
    }
  }

  Tensor weight_, gradient_;
  Tensor tokens_, flowing_;
};

class Residual final : public Stage {
 public:
  Residual(Chain body, Chain shortcut) : body_(std::move(body)), shortcut_(std::move(shortcut)) {}

  Tensor forward(const Tensor& x, ForwardContext& context) override {
    const Tensor way_round = body_.forward(x, context);
    return way_round + shortcut_.forward(x, context);
  }
  Tensor backward(const Tensor& flowing, bool wanted, std::span<double> squares) override {
    const Tensor way_round = body_.backward(flowing, wanted, squares);
    const Tensor short_cut = shortcut_.backward(flowing, wanted, squares);
    return wanted ? way_round + short_cut : Tensor();
  }
  void sum(const Shares& shares) override {
    body_.sum(shares);
    shortcut_.sum(shares);
  }

 private:
  Chain body_, shortcut_;
};

/// Whether nobody but a stage's successor holds on to its output.
bool gives_output_away(const StageSpec* stage) {
  return stage != nullptr &&
         (std::holds_alternative<StageSpec::Conv>(stage->kind) || std::holds_alternative<StageSpec::Linear>(stage->kind) ||
          std::holds_alternative<StageSpec::GroupNorm>(stage->kind) || std::holds_alternative<StageSpec::Residual>(stage->kind));
}

template <class... Cases>
struct Overload : Cases... {
  using Cases::operator()...;
};
template <class... Cases>
Overload(Cases...) -> Overload<Cases...>;

std::unique_ptr<Stage> make_stage(const StageSpec& stage, const StageSpec* before, const SlotViews& views, const Layout& layout) {
  const auto make = Overload{
      [&](const StageSpec::Conv&) -> std::unique_ptr<Stage> { return make_conv(stage, views); },
      [&](const StageSpec::Linear&) -> std::unique_ptr<Stage> { return std::make_unique<Linear>(stage, views); },
      [&](const StageSpec::Activation& spec) -> std::unique_ptr<Stage> {
        return std::make_unique<Activation>(spec.kind, gives_output_away(before));
      },
      [](const StageSpec::Pool& spec) -> std::unique_ptr<Stage> { return std::make_unique<Pool>(spec); },
      [](const StageSpec::Flatten&) -> std::unique_ptr<Stage> { return std::make_unique<Flatten>(); },
      [](const StageSpec::Dropout& spec) -> std::unique_ptr<Stage> { return std::make_unique<Dropout>(spec.probability); },
      [&](const StageSpec::GroupNorm&) -> std::unique_ptr<Stage> { return std::make_unique<GroupNorm>(stage, views); },
      [&](const StageSpec::BatchNorm&) -> std::unique_ptr<Stage> {
        const std::string& slot = layout.slots()[stage.slots[0]].name;
        throw ConfigError("model: stage " + slot.substr(0, slot.rfind('.')) +
                          " normalises over the batch, so no example has a gradient of its own, which dp_sgd needs; put "
                          "{\"group_norm\": {\"groups\": 2}} in its place");
      },
      [&](const StageSpec::Embedding&) -> std::unique_ptr<Stage> { return std::make_unique<Embedding>(stage, views); },
      [&](const StageSpec::Lstm&) -> std::unique_ptr<Stage> { return make_lstm(stage, views); },
      [&](const StageSpec::Residual& spec) -> std::unique_ptr<Stage> {
        return std::make_unique<Residual>(Chain(spec.body, views, layout), Chain(spec.shortcut, views, layout));
      }};
  return std::visit(make, stage.kind);
}

bool has_weights(const StageSpec& stage) {
  if (!stage.slots.empty()) return true;
  const auto* residual = std::get_if<StageSpec::Residual>(&stage.kind);
  if (residual == nullptr) return false;
  for (const auto* list : {&residual->body, &residual->shortcut}) {
    for (const StageSpec& one : *list) {
      if (has_weights(one)) return true;
    }
  }
  return false;
}

}  // namespace

Chain::Chain(const std::vector<StageSpec>& stages, const SlotViews& views, const Layout& layout) : first_weights_(stages.size()) {
  for (std::size_t i = 0; i < stages.size(); ++i) {
    stages_.push_back(make_stage(stages[i], i == 0 ? nullptr : &stages[i - 1], views, layout));
    if (first_weights_ == stages.size() && has_weights(stages[i])) first_weights_ = i;
  }
}

}  // namespace fl::ghost
