#include "fl_core/config/device.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fl_core/config/experiment.h"
#include "tests/support/test_support.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(Device, NamesGpusInOrder) {
  EXPECT_THAT(gpus_of("cpu", "device"), IsEmpty());
  EXPECT_THAT(gpus_of("cuda", "device"), ElementsAre(0));
  EXPECT_THAT(gpus_of("cuda:0", "device"), ElementsAre(0));
  EXPECT_THAT(gpus_of("cuda:12", "device"), ElementsAre(12));
  EXPECT_THAT(gpus_of("cuda:1,cuda:0,cuda:3", "device"), ElementsAre(1, 0, 3));
  EXPECT_EQ(device_type("cpu"), "cpu");
  EXPECT_EQ(device_type("cuda:1,cuda:0"), "cuda");
}

TEST(Device, RefusesOtherSpellingsAndSaysWhatItExpects) {
  EXPECT_EQ(test::error_of([] { gpus_of("gpu", "device"); }),
            "device: got \"gpu\", expected \"cpu\", \"cuda\", \"cuda:N\", or a list such as \"cuda:0,cuda:1\" that names each GPU once");
  for (const char* bad : {"", "CPU", "cud", "cuda0", "cuda:", "cuda:-1", "cuda:+1", "cuda:1x", "cuda:01", "cuda:100", "cuda:99999999999", "cuda;0", "cuda,", ",cuda", "cuda,,cuda:1",
                          "cpu,cuda", "cuda:0, cuda:1", "cuda,cuda:0", "cuda:1,cuda:1"}) {
    EXPECT_NE(test::error_of([&] { gpus_of(bad, "device"); }), "") << bad;
  }
}

TEST(Device, IsLeftOutOfAnExperimentOnTheProcessorAsBeforeTheKeyExisted) {
  nlohmann::json document = test::toy_experiment();
  const Experiment plain = parse_experiment(document, "test");
  EXPECT_EQ(plain.device, "cpu");
  EXPECT_FALSE(to_json(plain).contains("device"));
  document["device"] = "cpu";
  EXPECT_EQ(to_json(parse_experiment(document, "test")), to_json(plain));
  document["device"] = "cuda:1";
  EXPECT_EQ(to_json(parse_experiment(to_json(parse_experiment(document, "test")), "again")).at("device"), "cuda:1");
  document["device"] = "cuda:1,";
  EXPECT_EQ(test::error_of([&] { parse_experiment(document, "some.json"); }).rfind("some.json: device: got \"cuda:1,\"", 0), 0U);
}

}  // namespace
}  // namespace fl
