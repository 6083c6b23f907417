// What does federated simulation cost beyond the training itself? The same optimizer steps are run twice in turn: by
// run_simulation (sessions, encoding, exact sums, journal, checkpoints), and by a bare LibTorch loop (torch::nn modules,
// torch::optim::SGD, one thread a worker, nothing else). Prints best-of-n wall and CPU seconds and their ratios.

#include <torch/torch.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <thread>

#include "benchmarks/scenarios/stopwatch.h"
#include "fl_core/ml/batches.h"
#include "fl_core/ml/torch_runtime.h"
#include "simulations/simulation.h"

namespace {

namespace nn = torch::nn;

struct Case {
  std::string model;
  std::vector<std::int64_t> input;
  std::int64_t batch_size;
  std::function<nn::Sequential()> make;
};

nn::Sequential mlp_2nn() {
  return nn::Sequential(nn::Flatten(), nn::Linear(784, 200), nn::ReLU(), nn::Linear(200, 200), nn::ReLU(), nn::Linear(200, 10));
}

nn::Sequential lenet5() {
  return nn::Sequential(nn::Conv2d(nn::Conv2dOptions(3, 6, 5)), nn::ReLU(), nn::MaxPool2d(2), nn::Conv2d(nn::Conv2dOptions(6, 16, 5)),
                        nn::ReLU(), nn::MaxPool2d(2), nn::Flatten(), nn::Linear(400, 120), nn::ReLU(), nn::Linear(120, 84), nn::ReLU(),
                        nn::Linear(84, 10));
}

nn::Sequential cnn_mcmahan() {
  return nn::Sequential(nn::Conv2d(nn::Conv2dOptions(1, 32, 5).padding(2)), nn::ReLU(), nn::MaxPool2d(2),
                        nn::Conv2d(nn::Conv2dOptions(32, 64, 5).padding(2)), nn::ReLU(), nn::MaxPool2d(2), nn::Flatten(),
                        nn::Linear(3136, 512), nn::ReLU(), nn::Linear(512, 10));
}

struct Work {
  std::int64_t threads;
  std::int64_t rounds;
  std::int64_t clients;   ///< a round; all are sampled
  std::int64_t examples;  ///< of each client
};

fl::Experiment experiment(const Case& scenario, const Work& work) {
  const nlohmann::json document = {
      {"name", "bare_loop"},
      {"rounds", work.rounds},
      {"data", {{"name", "synthetic"}, {"examples", work.clients * work.examples}, {"test_examples", 10}, {"input", scenario.input}, {"classes", 10}}},
      {"partition", {{"name", "iid"}, {"clients", work.clients}}},
      {"model", {{"name", scenario.model}}},
      {"trainer", {{"name", "sgd"}, {"batch_size", scenario.batch_size}, {"learning_rate", 0.01}}},
      {"evaluation", {{"every", 0}}},
      {"round", {{"cohort", work.clients}}}};
  return fl::parse_experiment(document, "bare_loop");
}

/// One thread's share of the steps: batches of this client, then of that one, with one resident model.
void bare_thread(const Case& scenario, const fl::Dataset& data, const Work& work, std::int64_t thread) {
  fl::limit_threads_of_this_worker();
  nn::Sequential model = scenario.make();
  torch::optim::SGD optimizer(model->parameters(), torch::optim::SGDOptions(0.01));
  fl::BatchBuffer buffer;
  std::vector<std::int64_t> shape = scenario.input;
  shape.insert(shape.begin(), 0);
  for (std::int64_t client = thread; client < work.rounds * work.clients; client += work.threads) {
    std::vector<std::uint32_t> examples;
    for (std::int64_t start = 0; start < work.examples; start += scenario.batch_size) {
      const std::int64_t size = std::min(scenario.batch_size, work.examples - start);
      examples.resize(static_cast<std::size_t>(size));
      for (std::int64_t i = 0; i < size; ++i) {
        examples[static_cast<std::size_t>(i)] = static_cast<std::uint32_t>((client * 7919 + (start + i) * 31) % static_cast<std::int64_t>(data.size()));
      }
      const fl::Batch batch = buffer.gather(data, examples);
      shape[0] = size;
      const auto inputs = torch::from_blob(const_cast<float*>(batch.inputs.data()), shape);
      const auto labels = torch::from_blob(const_cast<std::int64_t*>(batch.labels.data()), {size}, torch::kInt64);
      optimizer.zero_grad();
      const auto loss = torch::nn::functional::cross_entropy(model->forward(inputs), labels);
      loss.backward();
      optimizer.step();
      // A loop that reports its loss reads it, as ours does.
      if (!(loss.item<float>() < 1e9F)) std::fprintf(stderr, "bare loop diverged\n");
    }
  }
}

void compare(const Case& scenario, const Work& work, int repeats) {
  const fl::Prepared prepared = fl::prepare(experiment(scenario, work));
  const auto folder = std::filesystem::temp_directory_path() / "tributary-bare-loop";
  Seconds ours;
  Seconds bare;
  for (int i = 0; i <= repeats; ++i) {  // the first turn only warms up
    std::filesystem::remove_all(folder);
    fl::SimulationOptions options;
    options.workers = static_cast<std::size_t>(work.threads);
    options.folder = folder;
    options.worker_setup = fl::limit_threads_of_this_worker;
    const Seconds simulated = measure([&] { fl::run_simulation(prepared, options); });
    const Seconds plain = measure([&] {
      std::vector<std::thread> threads;
      for (std::int64_t t = 0; t < work.threads; ++t) {
        threads.emplace_back([&, t] { bare_thread(scenario, *prepared.data.train, work, t); });
      }
      for (std::thread& thread : threads) thread.join();
    });
    if (i > 0 || repeats == 1) {
      ours.keep_best(simulated);
      bare.keep_best(plain);
    }
  }
  std::filesystem::remove_all(folder);
  const auto steps = static_cast<double>(work.rounds * work.clients * ((work.examples + scenario.batch_size - 1) / scenario.batch_size));
  std::printf("%-12s B=%-3ld  simulation %7.3f s wall %7.3f s CPU   bare loop %7.3f s wall %7.3f s CPU   ratio %.3f wall %.3f CPU   %.0f steps/s\n",
              scenario.model.c_str(), static_cast<long>(scenario.batch_size), ours.wall, ours.cpu, bare.wall, bare.cpu, ours.wall / bare.wall,
              ours.cpu / bare.cpu, steps / ours.wall);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Federated simulation beside the bare LibTorch loop that takes the same steps"};
  Work work{2, 3, 10, 600};
  int repeats = 5;
  std::vector<std::string> only;
  app.add_option("--threads", work.threads, "Workers, and threads of the bare loop")->check(CLI::Range(1, 256));
  app.add_option("--rounds", work.rounds, "Rounds");
  app.add_option("--clients", work.clients, "Clients a round");
  app.add_option("--examples", work.examples, "Examples of each client");
  app.add_option("--repeats", repeats, "Turns; the best of each side counts");
  app.add_option("--only", only, "Models to run");
  CLI11_PARSE(app, argc, argv);
  const std::vector<Case> cases = {{"mlp_2nn", {1, 28, 28}, 10, mlp_2nn}, {"lenet5", {3, 32, 32}, 50, lenet5}, {"cnn_mcmahan", {1, 28, 28}, 10, cnn_mcmahan}};
  std::printf("LibTorch %s, %ld threads, %ld rounds x %ld clients x %ld examples, best of %d\n", fl::torch_version().c_str(), static_cast<long>(work.threads),
              static_cast<long>(work.rounds), static_cast<long>(work.clients), static_cast<long>(work.examples), repeats);
  for (const Case& scenario : cases) {
    if (only.empty() || std::find(only.begin(), only.end(), scenario.model) != only.end()) compare(scenario, work, repeats);
  }
  return 0;
}
