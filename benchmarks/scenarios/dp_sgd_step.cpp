// What does privacy for single examples cost? The same client takes the same number of steps with `sgd` and with `dp_sgd`, in
// turn: batches of the same size, so that the difference is what clipping every example and adding noise costs. Prints
// best-of-n milliseconds a step (wall and CPU of the one thread) and their ratios.

#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>

#include "client/trainer/trainer.h"
#include "fl_core/ml/torch_runtime.h"

namespace {

struct Milliseconds {
  double wall = 1e300;
  double cpu = 1e300;
};

double cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Trains in turn with both trainers on one shard of exactly one batch.
class Comparison {
 public:
  Comparison(const std::string& model, const std::vector<std::int64_t>& input, std::int64_t batch, std::int64_t steps)
      : steps_(steps),
        data_(fl::data_sources().create({{"name", "synthetic"}, {"examples", batch}, {"test_examples", 10}, {"input", input}, {"classes", 10}}, "data")->load(1).train),
        model_(fl::models().create({{"name", model}}, "model", {data_->shape(), "model"})->make(1)),
        start_(model_->weights().begin(), model_->weights().end()),
        shard_(static_cast<std::size_t>(batch)) {
    std::iota(shard_.begin(), shard_.end(), 0U);
    const nlohmann::json options = {{"batch_size", batch}, {"steps", steps}, {"learning_rate", 0.01}};
    plain_ = make("sgd", options);
    private_ = make("dp_sgd", options);
  }

  void run(const std::string& name, int repeats) {
    Milliseconds plain, with_noise;
    for (int i = 0; i <= repeats; ++i) {  // the first turn only warms up
      const bool counts = i > 0;
      measure(*plain_, counts, plain);
      measure(*private_, counts, with_noise);
    }
    std::printf("%-10s B=%-4zu %8zu parameters   plain %7.3f ms wall %7.3f ms CPU   private %7.3f ms wall %7.3f ms CPU   ratio %.2f wall %.2f CPU\n",
                name.c_str(), shard_.size(), model_->layout()->weight_count(), plain.wall, plain.cpu, with_noise.wall, with_noise.cpu,
                with_noise.wall / plain.wall, with_noise.cpu / plain.cpu);
    std::fflush(stdout);
  }

 private:
  static std::unique_ptr<fl::Trainer> make(const std::string& name, nlohmann::json options) {
    options["name"] = name;
    return fl::trainers().create(options, "trainer");
  }

  void measure(fl::Trainer& trainer, bool counts, Milliseconds& best) {
    std::copy(start_.begin(), start_.end(), model_->weights().begin());
    fl::TrainingJob job{*model_, start_, *data_, shard_, 1, 1, 1, nullptr};
    // Every example is drawn, so that a batch is as large as the plain one.
    if (trainer.private_steps() > 0) job.example_noise = fl::ExampleNoise{1, 1, 1, {}};
    const double cpu = cpu_seconds();
    const auto wall = std::chrono::steady_clock::now();
    trainer.fit(job);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - wall).count();
    if (!counts) return;
    const auto each = 1e3 / static_cast<double>(steps_);
    best.wall = std::min(best.wall, seconds * each);
    best.cpu = std::min(best.cpu, (cpu_seconds() - cpu) * each);
  }

  std::int64_t steps_;
  std::shared_ptr<const fl::Dataset> data_;
  std::unique_ptr<fl::Model> model_;
  std::vector<float> start_;
  std::vector<std::uint32_t> shard_;
  std::unique_ptr<fl::Trainer> plain_, private_;
};

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"A step of DP-SGD beside the plain step on the same batch"};
  std::int64_t batch = 64;
  std::int64_t steps = 20;
  int repeats = 15;
  std::vector<std::string> only;
  app.add_option("--batch", batch, "Examples in a step")->check(CLI::Range(1, 10'000));
  app.add_option("--steps", steps, "Steps of one turn")->check(CLI::Range(1, 100'000));
  app.add_option("--repeats", repeats, "Turns; the best of each side counts")->check(CLI::Range(1, 10'000));
  app.add_option("--only", only, "Models to run");
  CLI11_PARSE(app, argc, argv);
  fl::limit_threads_of_this_worker();
  std::printf("LibTorch %s, one thread, best of %d turns of %ld steps\n", fl::torch_version().c_str(), repeats, static_cast<long>(steps));
  const std::vector<std::pair<std::string, std::vector<std::int64_t>>> cases = {
      {"mlp_2nn", {1, 28, 28}}, {"lenet5", {3, 32, 32}}, {"cnn_mcmahan", {1, 28, 28}}};
  for (const auto& [name, input] : cases) {
    const bool asked = std::find(only.begin(), only.end(), name) != only.end();
    if (asked || (only.empty() && name != "cnn_mcmahan")) Comparison(name, input, batch, steps).run(name, repeats);
  }
  return 0;
}
