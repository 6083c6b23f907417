#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "fl_core/ml/ghost_stage.h"

namespace fl::ghost {
namespace {

using torch::Tensor;

/// Where a kernel's window lies on one example.
struct Window {
  std::int64_t channels, height, width;   ///< of the input
  std::int64_t out_height, out_width;
  std::int64_t kernel, stride, padding;
};

/// One row of the unfolded input: what kernel column j sees of an input row while the window moves right.
void unfold_row(const Window& window, const float* row, std::int64_t j, float* out) {
  // The outputs whose window has column j inside of the input: 0 <= x * stride + j - padding < width.
  const std::int64_t shift = j - window.padding;
  const auto first_at = [&](std::int64_t column) {
    return std::clamp((column - shift + window.stride - 1) / window.stride, std::int64_t{0}, window.out_width);
  };
  const std::int64_t first = first_at(0), end = first_at(window.width);
  std::fill(out, out + first, 0.0F);
  if (window.stride == 1) {
    std::memcpy(out + first, row + first + shift, static_cast<std::size_t>(end - first) * sizeof(float));
  } else {
    for (std::int64_t x = first; x < end; ++x) out[x] = row[x * window.stride + shift];
  }
  std::fill(out + end, out + window.out_width, 0.0F);
}

/// image: [channels, height, width] -> out: [channels · kernel², out_height · out_width].
void unfold(const Window& window, const float* image, float* out) {
  for (std::int64_t channel = 0; channel < window.channels; ++channel, image += window.height * window.width) {
    for (std::int64_t tap = 0; tap < window.kernel * window.kernel; ++tap) {
      for (std::int64_t y = 0; y < window.out_height; ++y, out += window.out_width) {
        const std::int64_t from = y * window.stride + tap / window.kernel - window.padding;
        if (from < 0 || from >= window.height) {
          std::fill(out, out + window.out_width, 0.0F);
        } else {
          unfold_row(window, image + from * window.width, tap % window.kernel, out);
        }
      }
    }
  }
}

/// With the input unfolded to u [in · kernel², time], an example's gradient is f uᵀ for the flowing gradient f [out, time] (in
/// each group of channels). It is formed and kept where that costs less than the products of columns, which need no memory of
/// its size; the sum then takes the batch's own backward.
class Conv final : public Stage {
 public:
  Conv(const StageSpec& stage, const SlotViews& views)
      : spec_(std::get<StageSpec::Conv>(stage.kind)),
        weight_(views.weight(stage.slots[0])),
        weight_gradient_(views.gradient(stage.slots[0])),
        stride_{spec_.stride, spec_.stride},
        padding_{spec_.padding, spec_.padding},
        time_(stage.output[1] * stage.output[2]),
        taps_(spec_.in / spec_.groups * spec_.kernel * spec_.kernel),
        forms_gradients_(!columns_are_cheaper(taps_, spec_.out / spec_.groups, time_)) {
    if (!spec_.bias) return;
    bias_ = views.weight(stage.slots[1]);
    bias_gradient_ = views.gradient(stage.slots[1]);
  }

  Tensor forward(const Tensor& x, ForwardContext&) override {
    input_ = x.contiguous();
    return at::conv2d(input_, weight_, bias_, stride_, padding_, kDilation, spec_.groups);
  }

  Tensor backward(const Tensor& flowing, bool wanted, std::span<double> squares) override {
    flowing_ = flowing.contiguous();
    if (forms_gradients_) weight_gradients_ = torch::empty({flowing_.size(0), weight_.numel()}, torch::kFloat);
    find_squares(squares);
    if (forms_gradients_) add_squares(weight_gradients_, squares);
    if (spec_.bias) {
      bias_gradients_ = flowing_.sum({2, 3});
      add_squares(bias_gradients_, squares);
    }
    const Tensor down = wanted ? std::get<0>(batch_backward(flowing_, input_, {true, false, false})) : Tensor();
    if (forms_gradients_) input_ = flowing_ = Tensor();
    return down;
  }

  void sum(const Shares& shares) override {
    if (spec_.bias) shares.add_up(std::exchange(bias_gradients_, {}), bias_gradient_);
    if (forms_gradients_) {
      shares.add_up(std::exchange(weight_gradients_, {}), weight_gradient_);
      return;
    }
    const Tensor weighed = shares.weigh(std::exchange(flowing_, {})), input = shares.clean(std::exchange(input_, {}));
    weight_gradient_.copy_(std::get<1>(batch_backward(weighed, input, {false, true, false})));
  }

 private:
  static constexpr std::array<std::int64_t, 2> kDilation{1, 1};

  std::tuple<Tensor, Tensor, Tensor> batch_backward(const Tensor& flowing, const Tensor& input, std::array<bool, 3> wanted) const {
    const std::array<std::int64_t, 2> output_padding{0, 0};
    return at::convolution_backward(flowing, input, weight_, c10::nullopt, stride_, padding_, kDilation, false, output_padding,
                                    spec_.groups, wanted);
  }

  /// Unfolds one example after the other, so that each stays in the cache.
  void find_squares(std::span<double> squares) {
    const Window window{spec_.in, input_.size(2), input_.size(3), flowing_.size(2), flowing_.size(3), spec_.kernel, spec_.stride, spec_.padding};
    const bool is_unfolded = spec_.kernel == 1 && spec_.stride == 1 && spec_.padding == 0;
    const Tensor scratch = is_unfolded ? Tensor() : torch::empty({spec_.groups, taps_, time_}, torch::kFloat);
    for (std::size_t i = 0; i < squares.size(); ++i) {
      const auto row = static_cast<std::int64_t>(i);
      const Tensor image = input_.select(0, row);
      if (!is_unfolded) unfold(window, image.data_ptr<float>(), scratch.data_ptr<float>());
      const Tensor unfolded = is_unfolded ? image.view({spec_.groups, taps_, time_}) : scratch;
      const Tensor flowing = flowing_.select(0, row).view({spec_.groups, spec_.out / spec_.groups, time_});
      if (forms_gradients_) {
        form(flowing, unfolded, weight_gradients_.select(0, row));
      } else {
        squares[i] += square_by_columns(unfolded, flowing);
      }
    }
  }

  void form(const Tensor& flowing, const Tensor& unfolded, const Tensor& gradient) const {
    const std::int64_t out = spec_.out / spec_.groups;
    if (spec_.groups == 1) {
      Tensor into = gradient.view({out, taps_});
      at::mm_out(into, flowing.select(0, 0), unfolded.select(0, 0).t());
    } else if (out == 1) {
      // One filter a channel: a product of matrices for each channel would be nearly all overhead.
      Tensor into = gradient.view({spec_.groups, taps_});
      at::sum_out(into, unfolded * flowing, {2});
    } else {
      Tensor into = gradient.view({spec_.groups, out, taps_});
      at::bmm_out(into, flowing, unfolded.transpose(1, 2));
    }
  }

  StageSpec::Conv spec_;
  Tensor weight_, bias_, weight_gradient_, bias_gradient_;
  std::array<std::int64_t, 2> stride_, padding_;
  std::int64_t time_;  ///< places where the kernel is applied
  std::int64_t taps_;  ///< numbers that one output sees
  bool forms_gradients_;
  Tensor input_, flowing_;
  Tensor weight_gradients_, bias_gradients_;  ///< [rows, floats of the slot], one example's gradient a row
};

}  // namespace

std::unique_ptr<Stage> make_conv(const StageSpec& stage, const SlotViews& views) { return std::make_unique<Conv>(stage, views); }

}  // namespace fl::ghost
