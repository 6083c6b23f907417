// Training and measuring on an accelerator. No GPU is needed: LibTorch drives the processor as if it were one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>

#include "client/trainer/local_sgd.h"
#include "fl_core/ml/batches.h"
#include "fl_core/ml/torch_accelerator.h"
#include "fl_core/ml/torch_model.h"
#include "fl_core/ml/torch_runtime.h"
#include "simulations/simulation.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using testing::HasSubstr;

constexpr std::uint64_t kMuchMemory = 1ULL << 30U;

std::shared_ptr<TorchAccelerator> accelerator(std::uint64_t resident_bytes = kMuchMemory) {
  return std::make_shared<TorchAccelerator>(torch::Device(torch::kCPU), resident_bytes);
}

json data_of(std::int64_t examples, std::int64_t side) {
  return {{"name", "synthetic"}, {"examples", examples}, {"test_examples", 300}, {"input", {1, side, side}}, {"classes", 5}};
}

/// A client with 43 examples of 60, and the two models that must agree.
class Resident : public testing::TestWithParam<const char*> {
 protected:
  Resident() { limit_threads_of_this_worker(); }

  void use(const std::string& model) {
    const json component = model[0] == '{' ? json::parse(model) : json{{"name", model}};
    data_ = data_sources().create(data_of(60, 20), "data")->load(3);
    factory_ = models().create(component, "model", ModelContext{data_.train->shape(), "model"});
    shard_.resize(43);
    std::iota(shard_.begin(), shard_.end(), 11U);
    const auto model_here = factory_->make(7);
    global_.assign(model_here->weights().begin(), model_here->weights().end());
  }

  struct Fitted {
    TrainingResult result;
    std::vector<float> weights;
  };
  Fitted fit(Model& model, const json& trainer, ClientId client = 2) {
    std::copy(global_.begin(), global_.end(), model.weights().begin());
    Fitted fitted;
    fitted.result = trainers().create(trainer, "trainer")->fit({model, global_, *data_.train, shard_, 9, 1, client, stop_});
    fitted.weights.assign(model.weights().begin(), model.weights().end());
    return fitted;
  }

  /// The processor and the accelerator, which add up in different orders, agree as floats can after so many steps.
  void expect_agreement(const json& trainer) {
    const auto here = factory_->make(7);
    const auto there = factory_->make_on(7, device_);
    ASSERT_EQ(here->resident(), nullptr);
    ASSERT_NE(there->resident(), nullptr);
    const Fitted expected = fit(*here, trainer), got = fit(*there, trainer);
    EXPECT_EQ(got.result.steps, expected.result.steps);
    EXPECT_EQ(got.result.metrics.examples, expected.result.metrics.examples);
    EXPECT_FALSE(got.result.diverged);
    const double loss = static_cast<double>(expected.result.metrics.loss_units);
    EXPECT_NEAR(static_cast<double>(got.result.metrics.loss_units), loss, 1e-4 * loss);
    double moved = 0;
    for (std::size_t i = 0; i < global_.size(); ++i) {
      ASSERT_NEAR(got.weights[i], expected.weights[i], 2e-4F + 1e-4F * std::abs(expected.weights[i])) << trainer << " at " << i;
      moved = std::max(moved, std::abs(static_cast<double>(expected.weights[i] - global_[i])));
    }
    EXPECT_GT(moved, 0.005) << "nothing was learnt";
  }

  DataSplits data_;
  std::unique_ptr<ModelFactory> factory_;
  std::vector<std::uint32_t> shard_;
  std::vector<float> global_;
  std::function<bool()> stop_;
  std::shared_ptr<TorchAccelerator> device_ = accelerator();
};

TEST_P(Resident, TrainsAsOnTheProcessor) {
  use(GetParam());
  expect_agreement({{"name", "sgd"}, {"batch_size", 8}, {"learning_rate", 0.05}, {"epochs", 2}});
  expect_agreement({{"name", "sgd"}, {"batch_size", 8}, {"learning_rate", 0.02}, {"momentum", 0.9}, {"nesterov", true}, {"weight_decay", 0.01}});
  expect_agreement({{"name", "sgd"}, {"batch_size", 8}, {"learning_rate", 0.05}, {"momentum", 0.5}, {"clip_norm", 0.5}, {"steps", 9}});
  expect_agreement({{"name", "fedprox"}, {"batch_size", 8}, {"learning_rate", 0.05}, {"mu", 0.5}, {"epochs", 2}});
}

TEST_P(Resident, MeasuresAsOnTheProcessor) {
  use(GetParam());
  const auto here = factory_->make(7);
  const auto there = factory_->make_on(7, device_);
  std::vector<std::uint32_t> examples(data_.test->size());
  std::iota(examples.begin(), examples.end(), 0U);
  const Evaluation expected = evaluate_examples(*here, *data_.test, examples, 128);
  for (int again = 0; again < 2; ++again) {
    const Evaluation got = evaluate_examples(*there, *data_.test, examples, 128);
    EXPECT_EQ(got.examples, expected.examples);
    EXPECT_EQ(got.correct, expected.correct);
    EXPECT_TRUE(got.finite);
    EXPECT_NEAR(got.loss(), expected.loss(), 1e-5 * expected.loss());
  }
  EXPECT_EQ(device_->copies().weights_down, GetParam()[0] == 't' ? 1U : 0U) << "a module is tried out once";
}

INSTANTIATE_TEST_SUITE_P(Models, Resident,
                         testing::Values("mlp_2nn", "lenet5", "two_branch",
                                         R"({"name": "spec", "stages": [{"conv": {"out": 4, "kernel": 3}}, {"batch_norm": {}}, {"relu": {}},
                                             {"dropout": {"probability": 0.25}}, {"max_pool": {"kernel": 2}}, {"flatten": {}}, {"linear": {"out": "classes"}}]})"),
                         [](const auto& one) { return one.param[0] == '{' ? std::string("batch_norm") : std::string(one.param); });

class ResidentCopies : public Resident {};

TEST_F(ResidentCopies, AreOneOfAllWeightsEachWayAndTheDataOnce) {
  use("lenet5");
  const json trainer = {{"name", "sgd"}, {"batch_size", 8}, {"epochs", 3}, {"momentum", 0.9}};
  const auto model = factory_->make_on(7, device_);
  fit(*model, trainer);
  const auto& copies = device_->copies();
  EXPECT_EQ(copies.weights_up, 1U);
  EXPECT_EQ(copies.weights_down, 1U);
  EXPECT_EQ(copies.data_sets, 1U);
  EXPECT_EQ(copies.batches, 0U);
  // Another worker of the same device finds the data there; measuring brings no weights back.
  const auto other = factory_->make_on(7, device_);
  fit(*other, trainer, 3);
  evaluate_examples(*other, *data_.train, shard_, 10);
  evaluate_examples(*other, *data_.train, shard_, 10);
  EXPECT_EQ(copies.weights_up, 3U);
  EXPECT_EQ(copies.weights_down, 2U);
  EXPECT_EQ(copies.data_sets, 1U);
  EXPECT_EQ(copies.batches, 0U);
}

TEST_F(ResidentCopies, ReplaceDataThatDoNotFitBatchByBatchWithTheSameBits) {
  use("lenet5");
  const json trainer = {{"name", "sgd"}, {"batch_size", 8}, {"epochs", 2}};
  const auto small = accelerator(60 * 20 * 20 * 4 - 1);  // one byte less than the features
  const auto large = accelerator(60 * 20 * 20 * 4);
  const auto copying = factory_->make_on(7, small), resident = factory_->make_on(7, large);
  EXPECT_EQ(fit(*copying, trainer).weights, fit(*resident, trainer).weights);
  EXPECT_EQ(small->copies().data_sets, 0U);
  EXPECT_EQ(small->copies().batches, 12U);  // 2 epochs of ⌈43 / 8⌉
  EXPECT_EQ(large->copies().data_sets, 1U);
  EXPECT_EQ(large->copies().batches, 0U);
  // The test set's 300 images no longer fit beside the training set.
  evaluate_part(*resident, *data_.test, 0);
  EXPECT_EQ(large->copies().data_sets, 1U);
  EXPECT_EQ(large->copies().batches, 1U);
}

class ResidentTraining : public Resident {};

TEST_F(ResidentTraining, KeepsNothingOfTheClientBefore) {
  use("mlp_2nn");
  const json trainer = {{"name", "sgd"}, {"batch_size", 8}, {"momentum", 0.9}};
  const auto model = factory_->make_on(7, device_);
  const auto first = fit(*model, trainer, 4).weights;
  EXPECT_NE(fit(*model, trainer, 5).weights, first);
  EXPECT_EQ(fit(*model, trainer, 4).weights, first);
}

TEST_F(ResidentTraining, GoesOnBeyondTheLossesThatAreHeldOnTheDevice) {
  use("logistic");
  shard_.resize(5);
  expect_agreement({{"name", "sgd"}, {"batch_size", 2}, {"learning_rate", 0.01}, {"steps", ResidentModel::kMostSteps + 200}});
}

TEST_F(ResidentTraining, ReportsDivergenceWithTheStepsBefore) {
  use("mlp_2nn");
  const json trainer = {{"name", "sgd"}, {"batch_size", 8}, {"learning_rate", 1e6}, {"epochs", 5}};
  const auto here = factory_->make(7), there = factory_->make_on(7, device_);
  const TrainingResult expected = fit(*here, trainer).result, got = fit(*there, trainer).result;
  EXPECT_TRUE(expected.diverged);
  EXPECT_TRUE(got.diverged);
  EXPECT_EQ(got.steps, expected.steps);
  EXPECT_EQ(got.metrics.examples, expected.metrics.examples);
  EXPECT_EQ(device_->copies().weights_down, 0U);
  global_[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(fit(*there, trainer).result.steps, 0U);
  EXPECT_FALSE(evaluate_examples(*there, *data_.train, shard_, 10).finite);
}

TEST_F(ResidentTraining, StopsBetweenBatchesWhenAsked) {
  use("mlp_2nn");
  int polls = 0;
  stop_ = [&] { return ++polls > 2; };
  const auto model = factory_->make_on(7, device_);
  EXPECT_THROW(fit(*model, {{"name", "sgd"}, {"batch_size", 8}}), Interrupted);
  EXPECT_EQ(polls, 3);
}

TEST_F(ResidentTraining, KeepsTheContractOfAModelThatIsGivenBatches) {
  use("lenet5");
  const auto here = factory_->make(7), there = factory_->make_on(7, device_);
  BatchBuffer buffer;
  const Batch batch = buffer.gather(*data_.train, shard_);
  Rng one(1, Purpose::dropout), two(1, Purpose::dropout);
  EXPECT_NEAR(there->backward(batch, one), here->backward(batch, two), 1e-5);
  for (std::size_t i = 0; i < here->gradient().size(); ++i) ASSERT_NEAR(there->gradient()[i], here->gradient()[i], 1e-5);
  EXPECT_EQ(there->evaluate(batch).correct, here->evaluate(batch).correct);
  EXPECT_EQ(there->evaluate(batch).examples, here->evaluate(batch).examples);
}

TEST_F(ResidentTraining, RefusesTrainersOfTheProcessorByName) {
  const Devices devices({accelerator()});
  EXPECT_EQ(test::error_of([&] { devices.require(false, "trainer.name", "dp_sgd"); }),
            "trainer.name: dp_sgd runs on the cpu only; set \"device\" to \"cpu\", or choose another");
  EXPECT_EQ(test::error_of([&] { Devices().require(false, "trainer.name", "dp_sgd"); }), "");
  for (const std::string& name : trainers().names()) EXPECT_EQ(trainers().create({{"name", name}}, "trainer")->runs_on_accelerators(), name != "dp_sgd") << name;
}

TEST(Devices, SaysWhatIsMissingForCuda) {
  const GpuSupport support = gpu_support();
  EXPECT_TRUE(Devices("cpu", "device").on_cpu());
  if (support.cuda) {
    const std::string most = support.gpus == 0 ? "CUDA finds no GPU on this machine" : "this machine has " + std::to_string(support.gpus) + " GPU";
    EXPECT_THAT(test::error_of([] { Devices("cuda:99", "device"); }), HasSubstr("device: got \"cuda:99\", but " + most));
    return;
  }
  EXPECT_EQ(test::error_of([] { Devices("cuda:0,cuda:1", "device"); }),
            "device: got \"cuda:0,cuda:1\", but this build's LibTorch " + torch_version() +
                " has no CUDA; use \"cpu\" or build with -DCMAKE_PREFIX_PATH=<a CUDA LibTorch> (docs/gpu.md)");
}

/// A small federation whose workers compute on devices of the test's choosing.
class ResidentRun : public testing::Test {
 protected:
  json run(std::vector<std::shared_ptr<Accelerator>> accelerators, std::size_t workers, const std::string& device = "cpu", bool resume = false) {
    const json document = {{"name", "resident"}, {"seed", 5}, {"rounds", resume ? 3 : 2}, {"data", data_of(80, 8)},
                           {"partition", {{"name", "iid"}, {"clients", 8}}},
                           {"model", json::parse(R"({"name": "spec", "stages": [{"conv": {"out": 4, "kernel": 3}}, {"batch_norm": {}}, {"relu": {}},
                                                     {"dropout": {"probability": 0.25}}, {"flatten": {}}, {"linear": {"out": "classes"}}]})")},
                           {"trainer", {{"name", "sgd"}, {"batch_size", 5}, {"learning_rate", 0.05}}},
                           {"round", {{"cohort", 4}}}};
    Prepared prepared = prepare(parse_experiment(document, "test"));
    prepared.experiment.device = device;
    if (!accelerators.empty()) prepared.devices = std::make_unique<Devices>(std::move(accelerators));
    SimulationOptions options;
    options.workers = workers;
    options.worker_setup = limit_threads_of_this_worker;
    options.folder = folder_ / ("run" + std::to_string(resume ? runs_ : ++runs_));
    options.resume = resume;
    return run_simulation(prepared, options);
  }

  test::TemporaryFolder folder_;
  int runs_ = 0;
};

TEST_F(ResidentRun, HasTheSameBitsWhateverWorkersAndDevicesThereAre) {
  const auto one = accelerator(), two = accelerator(), three = accelerator();
  const json alone = run({one}, 1);
  EXPECT_EQ(run({two, three}, 3).at("model_sha256"), alone.at("model_sha256"));
  const json here = run({}, 2);
  EXPECT_NEAR(here.at("loss").get<double>(), alone.at("loss").get<double>(), 1e-3);
  // Two rounds of four clients; the training and the test set.
  EXPECT_EQ(one->copies().weights_down, 8U);
  EXPECT_EQ(one->copies().data_sets, 2U);
  EXPECT_EQ(two->copies().weights_down + three->copies().weights_down, 8U);
  EXPECT_EQ(one->copies().batches + two->copies().batches + three->copies().batches, 0U);
}

TEST_F(ResidentRun, GoesOnWithAnotherGpuButNotWithTheProcessor) {
  run({accelerator()}, 1, "cuda:0");
  EXPECT_THAT(test::error_of([&] { run({}, 1, "cpu", true); }), HasSubstr("experiment.json was changed since this run began"));
  EXPECT_EQ(test::error_of([&] { run({accelerator()}, 1, "cuda:0,cuda:1", true); }), "");
}

}  // namespace
}  // namespace fl
