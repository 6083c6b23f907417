// This program has no LibTorch, so there is nothing that could open a GPU.
#include "fl_core/ml/accelerator.h"

#include <gtest/gtest.h>

#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

const ExampleShape kShape{{4}, 3, 0};

class FakeAccelerator final : public Accelerator {
 public:
  explicit FakeAccelerator(std::string name) : name_(std::move(name)) {}
  const std::string& name() const override { return name_; }

 private:
  std::string name_;
};

/// Notes where models were asked for.
class NotingFactory final : public ModelFactory {
 public:
  std::unique_ptr<Model> make(std::uint64_t seed) const override {
    asked += " cpu";
    return test::make_toy_model(kShape, seed);
  }
  std::unique_ptr<Model> make_on(std::uint64_t seed, const std::shared_ptr<Accelerator>& accelerator) const override {
    asked += " " + accelerator->name();
    return test::make_toy_model(kShape, seed);
  }
  ModelCost cost() const override { return {}; }

  mutable std::string asked;
};

TEST(Devices, SpreadWorkersOverAcceleratorsInTurn) {
  NotingFactory factory;
  Devices two({std::make_shared<FakeAccelerator>("a"), std::make_shared<FakeAccelerator>("b")});
  EXPECT_FALSE(two.on_cpu());
  for (int worker = 0; worker < 3; ++worker) two.make_model(factory, 1);
  two.start_with(5);  // the sixth worker of several processes
  two.make_model(factory, 1);
  two.make_model(factory, 1);
  Devices none;
  EXPECT_TRUE(none.on_cpu());
  none.make_model(factory, 1);
  EXPECT_EQ(factory.asked, " a b a b a cpu");
}

TEST(Devices, RefuseGpusWithoutLibTorchAndSpellingsInAnyCase) {
  EXPECT_TRUE(Devices("cpu", "device").on_cpu());
  EXPECT_EQ(test::error_of([] { Devices("cuda", "device"); }), "device: got \"cuda\", expected \"cpu\": this program was built without LibTorch");
  EXPECT_EQ(test::error_of([] { Devices("cuda:", "device"); }).rfind("device: got \"cuda:\", expected \"cpu\", \"cuda\"", 0), 0U);
}

TEST(Devices, RefuseWhatRunsOnTheProcessorOnlyByName) {
  const Devices one({std::make_shared<FakeAccelerator>("a")});
  EXPECT_EQ(test::error_of([&] { one.require(true, "trainer.name", "sgd"); }), "");
  EXPECT_EQ(test::error_of([&] { one.require(false, "trainer.name", "dp_sgd"); }),
            "trainer.name: dp_sgd runs on the cpu only; set \"device\" to \"cpu\", or choose another");
  EXPECT_EQ(test::error_of([&] { Devices().require(false, "trainer.name", "dp_sgd"); }), "");
  // A model that knows nothing of accelerators.
  const auto factory = models().create({{"name", "toy_softmax"}}, "model", {kShape, "model"});
  EXPECT_EQ(test::error_of([&] { Devices({std::make_shared<FakeAccelerator>("a")}).make_model(*factory, 1); }),
            "model.name: this model runs on the cpu only; set \"device\" to \"cpu\", or choose another");
}

}  // namespace
}  // namespace fl
