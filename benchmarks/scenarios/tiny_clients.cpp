// What does a virtual client cost whose training is nearly nothing? Two tasks of logistic regression on images of 28x28:
//   tiny    1000 of 10 000 clients a round, 6 examples each, one step: pfl-research's case against the overhead of a client
//   flute   10 of 1000 clients a round, 60 examples each, batches of 10: FLUTE's published comparison, where rounds count too
// Prints the best of n turns: wall and CPU seconds of run_simulation() with everything in it (sessions, encoding, exact sums,
// journal, checkpoints, the last evaluation), clients a second, and microseconds of CPU a client.

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "benchmarks/scenarios/stopwatch.h"
#include "fl_core/ml/torch_runtime.h"
#include "simulations/simulation.h"

namespace {

struct Task {
  std::string name;
  std::int64_t clients;
  std::int64_t cohort;
  std::int64_t examples;  ///< of each client
  std::int64_t batch_size;
  std::int64_t rounds;
};

const std::vector<Task> kTasks = {{"tiny", 10'000, 1000, 6, 6, 20}, {"flute", 1000, 10, 60, 10, 100}};

/// `data`: a component without options; empty for random examples as floats, four times the memory of images as bytes.
fl::Experiment experiment(const Task& task, const std::string& data) {
  nlohmann::json document = {
      {"name", "tiny_clients"},
      {"rounds", task.rounds},
      {"data", {{"name", "synthetic"}, {"examples", task.clients * task.examples}, {"test_examples", 1000}, {"input", {1, 28, 28}}, {"classes", 10}}},
      {"partition", {{"name", "iid"}, {"clients", task.clients}}},
      {"model", {{"name", "logistic"}}},
      {"trainer", {{"name", "sgd"}, {"batch_size", task.batch_size}, {"learning_rate", 0.03}}},
      {"evaluation", {{"every", 0}}},
      {"round", {{"cohort", task.cohort}}}};
  if (!data.empty()) document["data"] = {{"name", data}};
  return fl::parse_experiment(document, "tiny_clients");
}

void run(const Task& task, const std::string& data, std::size_t workers, int repeats, const std::filesystem::path& folder) {
  const fl::Prepared prepared = fl::prepare(experiment(task, data));
  Seconds best;
  for (int i = 0; i < repeats; ++i) {
    std::filesystem::remove_all(folder);
    fl::SimulationOptions options;
    options.workers = workers;
    options.folder = folder;
    options.worker_setup = fl::limit_threads_of_this_worker;
    const Seconds one = measure([&] { fl::run_simulation(prepared, options); });
    best.keep_best(one);
  }
  std::filesystem::remove_all(folder);
  const auto clients = static_cast<double>(task.rounds * task.cohort);
  std::printf("%-6s %7.3f s wall %7.3f s CPU   %8.0f clients/s   %6.1f us of CPU a client   %6.0f us wall a round\n", task.name.c_str(), best.wall,
              best.cpu, clients / best.wall, 1e6 * best.cpu / clients, 1e6 * best.wall / static_cast<double>(task.rounds));
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Virtual clients whose training is nearly nothing: what each one costs"};
  std::size_t workers = 2;
  std::int64_t rounds = 0;
  int repeats = 5;
  std::vector<std::string> only;
  std::string data;
  std::filesystem::path folder = std::filesystem::temp_directory_path() / "tributary-tiny-clients";
  app.add_option("--workers", workers, "Worker threads")->check(CLI::Range(1, 256));
  app.add_option("--rounds", rounds, "Rounds; default: 20 (tiny), 100 (flute)");
  app.add_option("--repeats", repeats, "Turns; the best counts")->check(CLI::Range(1, 1000));
  app.add_option("--only", only, "Tasks to run: tiny, flute");
  app.add_option("--data", data, "Data set of 28x28 images: fashion_mnist; default: random examples");
  app.add_option("--folder", folder, "Run folder, made and removed in every turn; checkpoints are as fast as its disk");
  CLI11_PARSE(app, argc, argv);
  std::printf("LibTorch %s, %zu workers, best of %d\n", fl::torch_version().c_str(), workers, repeats);
  for (Task task : kTasks) {
    if (!only.empty() && std::find(only.begin(), only.end(), task.name) == only.end()) continue;
    if (rounds > 0) task.rounds = rounds;
    run(task, data, workers, repeats, folder);
  }
  return 0;
}
