// What does noise from a secure generator on an exact grid cost? GridGaussian (AES-256-CTR, integers) beside LibTorch's normal_
// (Mersenne Twister, floats, neither secure nor safe against attacks on its low bits), in turn, one thread, same number of
// draws. Prints draws a second, best of n, and their ratio; the seconds are processor time, so that what else runs counts less.

#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <functional>
#include <vector>

#include "fl_core/ml/torch_runtime.h"
#include "privacy/noise/grid_gaussian.h"

namespace {

double thread_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

double measure(const std::function<void()>& action) {
  const double start = thread_seconds();
  action();
  return thread_seconds() - start;
}

void compare(std::size_t size, int repeats) {
  constexpr double kStddev = 1.1;
  const fl::GridGaussian noise(kStddev, -32);
  fl::SecureNoiseKeys keys;
  fl::RandomBits bits(keys.key(fl::NoisePurpose::central, 1, 0));
  std::vector<std::int64_t> draws(size);
  std::vector<float> update(size);
  const torch::Tensor tensor = torch::zeros({static_cast<std::int64_t>(size)});
  const fl::GridGaussian fine(kStddev, fl::GridGaussian::float_grid(kStddev));
  double ours = 1e300;
  double added = 1e300;
  double theirs = 1e300;
  for (int i = 0; i <= repeats; ++i) {  // the first turn only warms up
    const double theirs_now = measure([&] { tensor.normal_(0, kStddev); });
    const double ours_now = measure([&] { noise.fill(bits, draws); });
    const double added_now = measure([&] { fl::add_gaussian(fine, bits, update); });
    if (i == 0) continue;
    ours = std::min(ours, ours_now);
    added = std::min(added, added_now);
    theirs = std::min(theirs, theirs_now);
  }
  const double millions = static_cast<double>(size) / 1e6;
  std::printf("{\"draws\": %zu, \"grid_gaussian_millions_per_s\": %.1f, \"torch_normal_millions_per_s\": %.1f, \"ratio\": %.3f, "
              "\"add_gaussian_millions_per_s\": %.1f}\n",
              size, millions / ours, millions / theirs, theirs / ours, millions / added);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Secure noise on a grid beside LibTorch's normal_, one thread"};
  int repeats = 30;
  std::vector<std::size_t> sizes = {100'000, 1'000'000, 10'000'000};
  app.add_option("--repeats", repeats, "Turns; the best of each side counts")->check(CLI::Range(1, 100'000));
  app.add_option("--draws", sizes, "Draws of a turn");
  CLI11_PARSE(app, argc, argv);
  const torch::NoGradGuard no_gradients;
  torch::set_num_threads(1);
  std::printf("LibTorch %s, one thread, best of %d\n", fl::torch_version().c_str(), repeats);
  for (const std::size_t size : sizes) compare(size, repeats);
  return 0;
}
