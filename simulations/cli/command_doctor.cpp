#include <sys/statvfs.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "fl_core/ml/dataset.h"
#include "fl_core/ml/torch_runtime.h"
#include "fl_core/params/kernels.h"
#include "simulations/cli/command.h"
#include "simulations/cli/terminal.h"

namespace fl::cli {
namespace {

/// A core with AVX2 reaches 40 to 120; the reference BLAS without OpenBLAS about 2.
constexpr double kSlowBlasGflops = 15;
constexpr double kLittleMemoryBytes = 2e9;
constexpr double kLittleDiskBytes = 1e9;

struct Finding {
  std::string what;
  std::string found;
  std::string fix;  ///< empty when all is well
};

Finding check_blas() {
  const BlasSpeed speed = measure_blas();
  Finding finding{"BLAS", human_count(static_cast<std::int64_t>(speed.gflops)) + " GFLOP/s on one core (" + speed.library + ")", ""};
  if (speed.gflops < kSlowBlasGflops) {
    finding.fix = "matrix products are slow, training takes 3 to 45 times longer than it need: apt install libopenblas0-pthread";
  }
  return finding;
}

Finding check_memory() {
  const double bytes = static_cast<double>(::sysconf(_SC_AVPHYS_PAGES)) * static_cast<double>(::sysconf(_SC_PAGESIZE));
  Finding finding{"memory", human_bytes(bytes) + " free", ""};
  if (bytes < kLittleMemoryBytes) finding.fix = "use fewer --workers and smaller models; 'fl plan FILE' says what a run needs";
  return finding;
}

Finding check_disk() {
  struct statvfs disk {};
  if (::statvfs(".", &disk) != 0) return {"disk", "unknown", "the current folder cannot be inspected; change into another"};
  const double bytes = static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  Finding finding{"disk", human_bytes(bytes) + " free here", ""};
  if (bytes < kLittleDiskBytes) finding.fix = "free some space, or write the runs elsewhere with --output DIR";
  if (::access(".", W_OK) != 0) finding.fix = "the current folder is not writable: use --output DIR";
  return finding;
}

/// The data sets whose default files exist without any configuration.
Finding check_fashion_mnist() {
  const auto source = data_sources().create({{"name", "fashion_mnist"}}, "data");
  try {
    const DataSplits splits = source->load(1);
    return {"data: fashion_mnist", human_count(static_cast<std::int64_t>(splits.train->size())) + " training and " +
                                       human_count(static_cast<std::int64_t>(splits.test->size())) + " test images", ""};
  } catch (const Error& error) {
    return {"data: fashion_mnist", "not found", error.what()};
  }
}

std::vector<Finding> examine() {
  limit_threads_of_this_worker();
  std::vector<Finding> findings;
  findings.push_back({"Tributary", FL_VERSION, ""});
  findings.push_back({"LibTorch", torch_version(), ""});
  findings.push_back({"GPUs", gpu_support().text, ""});
  findings.push_back(check_blas());
  findings.push_back({"kernels", std::string(kernels::instruction_set()), ""});
  findings.push_back({"cores", std::to_string(available_cores()) + " (the default of --workers)", ""});
  findings.push_back(check_memory());
  findings.push_back(check_disk());
  findings.push_back(check_fashion_mnist());
  std::string others;
  for (const std::string& name : data_sources().names()) {
    if (name != "fashion_mnist") others += (others.empty() ? "" : ", ") + name;
  }
  findings.push_back({"data: your own files", others, ""});
  return findings;
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("doctor", "What this machine can do: LibTorch, BLAS speed, threads, data sets, with fixes");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "One JSON object");
  command->callback([json, &action] {
    action = [json] {
      const auto findings = examine();
      bool healthy = true;
      std::vector<std::vector<std::string>> rows = {{"", "what", "found"}};
      nlohmann::json report = nlohmann::json::array();
      for (const Finding& finding : findings) {
        healthy = healthy && finding.fix.empty();
        rows.push_back({finding.fix.empty() ? "ok" : "!!", finding.what, finding.found});
        report.push_back({{"what", finding.what}, {"found", finding.found}, {"fix", finding.fix}});
      }
      if (*json) {
        std::printf("%s\n", nlohmann::json{{"healthy", healthy}, {"findings", report}}.dump().c_str());
      } else {
        std::printf("%s", table(rows).c_str());
        for (const Finding& finding : findings) {
          if (!finding.fix.empty()) std::printf("\n%s -> %s\n", finding.what.c_str(), finding.fix.c_str());
        }
      }
      return healthy ? ExitCode::ok : ExitCode::config;
    };
  });
}

}  // namespace fl::cli
