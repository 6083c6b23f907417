#include "fl_core/ml/torch_max_pool.h"

#include <torch/torch.h>

#include "fl_core/base/error.h"

namespace fl {
namespace {

using torch::Tensor;

/// The numbers of a window's values must fit into 8 bits.
constexpr std::int64_t kLargestKernel = 16;

struct Plane {
  std::int64_t height, width, out_height, out_width;
};

/// Whether a value takes the place of the one before it: the first of equal ones stays, and NaN is never lost, as in LibTorch.
inline bool takes_over(float value, float before) { return (value > before) | (value != value); }

/// All bits set where it does.
inline std::uint32_t mask_of(float value, float before) { return 0U - static_cast<std::uint32_t>(takes_over(value, before)); }
inline std::uint32_t pick(std::uint32_t mask, std::uint32_t yes, std::uint32_t no) { return (yes & mask) | (no & ~mask); }
/// By bits: a choice in any other form becomes a branch, which nobody can foretell.
inline float pick(std::uint32_t mask, float yes, float no) {
  return __builtin_bit_cast(float, pick(mask, __builtin_bit_cast(std::uint32_t, yes), __builtin_bit_cast(std::uint32_t, no)));
}

/// A row of windows of 2 x 2: what comes first in a row wins over what comes later, and the upper row over the lower. Without branches, so that
/// the compiler can do several windows at a time.
template <bool kPlaces>
void pool_row_by_two(const float* __restrict upper, const float* __restrict lower, float* __restrict values, std::uint8_t* __restrict places, std::int64_t windows, std::int64_t stride) {
  for (std::int64_t i = 0; i < windows; ++i) {
    const float* const a = upper + i * stride;
    const float* const b = lower + i * stride;
    const std::uint32_t right_above = mask_of(a[1], a[0]);
    const std::uint32_t right_below = mask_of(b[1], b[0]);
    const float above = pick(right_above, a[1], a[0]);
    const float below = pick(right_below, b[1], b[0]);
    const std::uint32_t is_below = mask_of(below, above);
    values[i] = pick(is_below, below, above);
    if constexpr (kPlaces) places[i] = static_cast<std::uint8_t>(pick(is_below, 2 + (right_below & 1), right_above & 1));
  }
}

/// A row of windows of any size.
template <bool kPlaces>
void pool_row(const float* in, std::int64_t width, float* values, std::uint8_t* places, std::int64_t windows, const MaxPool& pool) {
  for (std::int64_t i = 0; i < windows; ++i) {
    const float* const window = in + i * pool.stride;
    float best = window[0];
    std::int64_t place = 0;
    for (std::int64_t y = 0; y < pool.kernel; ++y) {
      for (std::int64_t x = y == 0 ? 1 : 0; x < pool.kernel; ++x) {
        const float value = window[y * width + x];
        if (!takes_over(value, best)) continue;
        best = value;
        place = y * pool.kernel + x;
      }
    }
    values[i] = best;
    if constexpr (kPlaces) places[i] = static_cast<std::uint8_t>(place);
  }
}

template <bool kPlaces>
void pool_planes(const float* in, float* values, std::uint8_t* places, std::int64_t planes, const Plane& plane, const MaxPool& pool) {
  for (std::int64_t i = 0; i < planes; ++i, in += plane.height * plane.width) {
    for (std::int64_t row = 0; row < plane.out_height; ++row, values += plane.out_width) {
      const float* const first = in + row * pool.stride * plane.width;
      if (pool.kernel == 2 && pool.stride == 2) {
        pool_row_by_two<kPlaces>(first, first + plane.width, values, places, plane.out_width, 2);
      } else if (pool.kernel == 2) {
        pool_row_by_two<kPlaces>(first, first + plane.width, values, places, plane.out_width, pool.stride);
      } else {
        pool_row<kPlaces>(first, plane.width, values, places, plane.out_width, pool);
      }
      if constexpr (kPlaces) places += plane.out_width;
    }
  }
}

Plane plane_of(at::IntArrayRef sizes, const MaxPool& pool) {
  return {sizes[2], sizes[3], (sizes[2] - pool.kernel) / pool.stride + 1, (sizes[3] - pool.kernel) / pool.stride + 1};
}

class MaxPoolFunction : public torch::autograd::Function<MaxPoolFunction> {
 public:
  static Tensor forward(torch::autograd::AutogradContext* context, const Tensor& x, std::int64_t kernel, std::int64_t stride) {
    const MaxPool::Result result = MaxPool{kernel, stride}.forward(x, true);
    context->save_for_backward({result.places});
    context->saved_data["sizes"] = x.sizes().vec();
    context->saved_data["kernel"] = kernel;
    context->saved_data["stride"] = stride;
    return result.values;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& gradients) {
    const MaxPool pool{context->saved_data["kernel"].toInt(), context->saved_data["stride"].toInt()};
    return {pool.backward(gradients[0], context->get_saved_variables()[0], context->saved_data["sizes"].toIntVector()), Tensor(), Tensor()};
  }
};

}  // namespace

bool MaxPool::covers(const Tensor& x, std::int64_t kernel, std::int64_t stride, std::int64_t padding) {
  return padding == 0 && kernel >= 1 && kernel <= kLargestKernel && stride >= kernel && x.dim() == 4 && x.size(2) >= kernel && x.size(3) >= kernel &&
         x.device().is_cpu() && x.scalar_type() == torch::kFloat && x.is_contiguous();
}

MaxPool::Result MaxPool::forward(const Tensor& x, bool with_places) const {
  FL_CHECK(covers(x, kernel, stride, 0), "MaxPool on a tensor that it does not cover");
  const Plane plane = plane_of(x.sizes(), *this);
  const std::int64_t planes = x.size(0) * x.size(1);
  Result result;
  result.values = at::empty({x.size(0), x.size(1), plane.out_height, plane.out_width}, at::kFloat);
  if (with_places) {
    result.places = at::empty(result.values.sizes(), at::kByte);
    pool_planes<true>(x.data_ptr<float>(), result.values.data_ptr<float>(), result.places.data_ptr<std::uint8_t>(), planes, plane, *this);
  } else {
    pool_planes<false>(x.data_ptr<float>(), result.values.data_ptr<float>(), nullptr, planes, plane, *this);
  }
  return result;
}

Tensor MaxPool::backward(const Tensor& gradient, const Tensor& places, at::IntArrayRef sizes) const {
  const Plane plane = plane_of(sizes, *this);
  const Tensor flowing = gradient.contiguous();
  Tensor result = at::zeros(sizes, at::kFloat);
  const float* from = flowing.data_ptr<float>();
  const std::uint8_t* place = places.data_ptr<std::uint8_t>();
  float* to = result.data_ptr<float>();
  std::int64_t offsets[kLargestKernel * kLargestKernel];
  for (std::int64_t i = 0; i < kernel * kernel; ++i) offsets[i] = i / kernel * plane.width + i % kernel;
  for (std::int64_t i = 0; i < sizes[0] * sizes[1]; ++i, to += plane.height * plane.width) {
    for (std::int64_t row = 0; row < plane.out_height; ++row) {
      float* const windows = to + row * stride * plane.width;
      for (std::int64_t column = 0; column < plane.out_width; ++column) windows[column * stride + offsets[*place++]] = *from++;
    }
  }
  return result;
}

Tensor max_pool(const Tensor& x, std::int64_t kernel, std::int64_t stride, std::int64_t padding) {
  if (!MaxPool::covers(x, kernel, stride, padding)) return at::max_pool2d(x, {kernel, kernel}, {stride, stride}, {padding, padding});
  if (torch::GradMode::is_enabled() && x.requires_grad()) return MaxPoolFunction::apply(x, kernel, stride);
  return MaxPool{kernel, stride}.forward(x, false).values;
}

}  // namespace fl
