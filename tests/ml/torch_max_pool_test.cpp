#include "fl_core/ml/torch_max_pool.h"

#include <gtest/gtest.h>
#include <torch/torch.h>

#include <cmath>
#include <cstring>
#include <limits>

namespace fl {
namespace {

using torch::Tensor;

struct Case {
  std::int64_t rows, channels, height, width, kernel, stride;
};

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.sizes() == b.sizes() && std::memcmp(a.data_ptr<float>(), b.data_ptr<float>(), static_cast<std::size_t>(a.numel()) * sizeof(float)) == 0;
}

/// Few distinct values, so that windows hold equal ones; and now and then one that is no number.
Tensor awkward_input(const Case& c, bool special) {
  torch::manual_seed(c.height * 100 + c.width);
  Tensor x = torch::randint(-3, 4, {c.rows, c.channels, c.height, c.width}).to(torch::kFloat);
  if (!special) return x;
  float* values = x.data_ptr<float>();
  const float specials[] = {std::nanf(""), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), -0.0F};
  for (std::int64_t i = 0; i < x.numel(); i += 5) values[i] = specials[static_cast<std::size_t>(i / 5 % 4)];
  return x;
}

TEST(MaxPool, GivesLibTorchsValuesAndGradientsToTheBit) {
  for (const Case c : {Case{2, 3, 8, 8, 2, 2}, {1, 1, 2, 2, 2, 2}, {3, 2, 7, 9, 2, 2}, {2, 1, 9, 10, 3, 3}, {1, 2, 11, 11, 3, 4}, {2, 2, 10, 10, 5, 5}, {1, 1, 16, 16, 16, 16}, {2, 1, 4, 5, 1, 1}, {1, 3, 6, 6, 2, 3}}) {
    for (const bool special : {false, true}) {
      Tensor x = awkward_input(c, special).requires_grad_();
      Tensor reference = x.detach().clone().requires_grad_();
      ASSERT_TRUE(MaxPool::covers(x, c.kernel, c.stride, 0));
      const Tensor y = max_pool(x, c.kernel, c.stride, 0);
      const Tensor expected = at::max_pool2d(reference, {c.kernel, c.kernel}, {c.stride, c.stride});
      ASSERT_TRUE(same_bits(y, expected)) << c.height << "x" << c.width << " kernel " << c.kernel;
      const Tensor gradient = torch::randn(y.sizes());
      y.backward(gradient);
      expected.backward(gradient);
      ASSERT_TRUE(same_bits(x.grad(), reference.grad())) << c.height << "x" << c.width << " kernel " << c.kernel;
      const torch::NoGradGuard no_grad;
      EXPECT_TRUE(same_bits(max_pool(x, c.kernel, c.stride, 0), expected));
    }
  }
}

TEST(MaxPool, TakesAGradientThatIsNotContiguous) {
  Tensor x = torch::randn({2, 3, 8, 8}).requires_grad_();
  Tensor reference = x.detach().clone().requires_grad_();
  const Tensor gradient = torch::randn({2, 4, 4, 3}).permute({0, 3, 1, 2});
  max_pool(x, 2, 2, 0).backward(gradient);
  at::max_pool2d(reference, {2, 2}).backward(gradient);
  EXPECT_TRUE(same_bits(x.grad(), reference.grad()));
}

TEST(MaxPool, LeavesToLibTorchWhatItDoesNotCover) {
  const Tensor x = torch::randn({1, 2, 9, 9});
  EXPECT_FALSE(MaxPool::covers(x, 3, 2, 0)) << "windows overlap";
  EXPECT_FALSE(MaxPool::covers(x, 3, 3, 1)) << "windows leave the image";
  EXPECT_FALSE(MaxPool::covers(x.to(torch::kDouble), 2, 2, 0));
  EXPECT_FALSE(MaxPool::covers(x.transpose(2, 3), 2, 2, 0));
  EXPECT_FALSE(MaxPool::covers(x, 10, 10, 0)) << "larger than the image: LibTorch says so";
  EXPECT_FALSE(MaxPool::covers(torch::randn({1, 1, 20, 20}), 17, 17, 0));
  EXPECT_TRUE(same_bits(max_pool(x, 3, 2, 1), at::max_pool2d(x, {3, 3}, {2, 2}, {1, 1})));
  EXPECT_TRUE(same_bits(max_pool(x.transpose(2, 3), 2, 2, 0).contiguous(), at::max_pool2d(x.transpose(2, 3), {2, 2}).contiguous()));
}

}  // namespace
}  // namespace fl
