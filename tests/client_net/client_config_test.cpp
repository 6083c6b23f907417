#include "client/client_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ClientConfigTest : public ::testing::Test {
 protected:
  ClientConfigTest() {
    for (const char* name : {"cert.pem", "key.pem", "ca.pem"}) test::write_file(folder / name, "PEM");
    document = {{"server", "127.0.0.1:7443"},
                {"tls", {{"certificate", "cert.pem"}, {"key", "key.pem"}, {"authority", "ca.pem"}}},
                {"data", {{"name", "synthetic"}, {"examples", 30}, {"test_examples", 10}, {"input", {4}}, {"classes", 3}}}};
  }
  ClientConfig load() {
    file = test::write_file(folder / "client.json", document.dump());
    return load_client_config(file);
  }
  std::string error() {
    return test::error_of([&] { load_local_data(load()); });
  }

  test::TemporaryFolder folder;
  std::string file;
  json document;
};

TEST_F(ClientConfigTest, FillsInWhatIsLeftOut) {
  const ClientConfig config = load();
  EXPECT_EQ(config.host, "127.0.0.1");
  EXPECT_EQ(config.port, 7443);
  EXPECT_EQ(config.server_name, "127.0.0.1");
  EXPECT_EQ(config.tls.certificate, (folder / "cert.pem").string());
  EXPECT_EQ(config.tls.revocations, "");
  EXPECT_EQ(config.state, (folder / "state").string());
  EXPECT_EQ(config.limits.threads, 1);
  EXPECT_EQ(config.limits.cache_mb, 1024);
  EXPECT_FALSE(config.exit_when_finished);
  EXPECT_EQ(load_local_data(config).shard.size(), 30U);
}

TEST_F(ClientConfigTest, TakesPathsFromItsOwnFolder) {
  test::write_file(folder.path() / "local" / "train.csv", "a,b,label\n1,2,0\n3,4,1\n5,6,0\n7,8,1\n");
  document["data"] = {{"name", "csv"}, {"train", "local/train.csv"}, {"label", "label"}, {"test_fraction", 0.25}};
  document["state"] = "elsewhere";
  const ClientConfig config = load();
  EXPECT_EQ(config.data.at("train"), (folder.path() / "local" / "train.csv").string());
  EXPECT_EQ(config.data.at("label"), "label");
  EXPECT_EQ(config.state, (folder / "elsewhere").string());
  document["state"] = "/somewhere/else";
  EXPECT_EQ(load().state, "/somewhere/else");
  document["state"] = "";
  EXPECT_EQ(load().state, "");
}

TEST_F(ClientConfigTest, NamesFileAndKeyInItsErrors) {
  document["servr"] = 1;
  EXPECT_THAT(error(), AllOf(StartsWith((folder / "client.json").string()), HasSubstr("servr: unknown key"), HasSubstr("did you mean 'server'")));
}

TEST_F(ClientConfigTest, RefusesWhatCannotBeAnAddress) {
  for (const char* address : {"", "host", "host:", ":7443", "host:0", "host:65536", "host:74x", "::1:7443"}) {
    document["server"] = address;
    EXPECT_THAT(error(), HasSubstr("server")) << address;
  }
  document["server"] = "[::1]:7443";
  EXPECT_EQ(load().host, "::1");
}

TEST_F(ClientConfigTest, NamesACertificateThatIsNotThere) {
  std::filesystem::remove(folder / "key.pem");
  EXPECT_THAT(error(), AllOf(HasSubstr("tls.key: " + (folder / "key.pem").string()), HasSubstr("no such file")));
  document["tls"].erase("key");
  EXPECT_THAT(error(), HasSubstr("tls.key: missing"));
}

TEST_F(ClientConfigTest, RefusesHoursThatAreNoWindow) {
  document["limits"] = {{"hours", "22"}};
  EXPECT_THAT(error(), HasSubstr("limits.hours: got \"22\""));
}

TEST_F(ClientConfigTest, TakesADeviceOfItsOwn) {
  EXPECT_EQ(load().device, "cpu");
  document["device"] = "cuda:1";  // whether there is one is asked when the client starts
  EXPECT_EQ(load().device, "cuda:1");
  document["device"] = "gpu";
  EXPECT_THAT(error(), HasSubstr("device: got \"gpu\", expected \"cpu\", \"cuda\""));
}

TEST_F(ClientConfigTest, TakesWhatTheOwnerWantsOfSecureAggregation) {
  const SecureAggregationDemand left_out = load().secure_aggregation;
  EXPECT_FALSE(left_out.required);
  EXPECT_EQ(left_out.policy.adversary_rate, 0);
  EXPECT_EQ(left_out.policy.security_bits, 40);
  EXPECT_EQ(left_out.policy.minimum_survivors, 3U);
  EXPECT_FALSE(left_out.policy.accept_curious);
  document["secure_aggregation"] = {{"required", true}, {"adversary_rate", 0.25}, {"security_bits", 64}, {"minimum_survivors", 20}, {"accept_curious", true}};
  const SecureAggregationDemand demand = load().secure_aggregation;
  EXPECT_TRUE(demand.required);
  EXPECT_EQ(demand.policy.adversary_rate, 0.25);
  EXPECT_EQ(demand.policy.security_bits, 64);
  EXPECT_EQ(demand.policy.minimum_survivors, 20U);
  EXPECT_TRUE(demand.policy.accept_curious);
}

TEST_F(ClientConfigTest, RefusesADemandOnSecureAggregationThatNobodyCouldMeet) {
  const auto error_for = [&](const char* key, const json& value) {
    document["secure_aggregation"] = {{key, value}};
    return error();
  };
  EXPECT_THAT(error_for("adversary_rate", 1), HasSubstr("secure_aggregation.adversary_rate: got 1"));
  EXPECT_THAT(error_for("security_bits", 0), HasSubstr("secure_aggregation.security_bits: got 0"));
  EXPECT_THAT(error_for("security_bits", 129), HasSubstr("secure_aggregation.security_bits: got 129"));
  EXPECT_THAT(error_for("minimum_survivors", 2), HasSubstr("secure_aggregation.minimum_survivors: got 2"));
  EXPECT_THAT(error_for("minimum_survivors", 65'537), HasSubstr("secure_aggregation.minimum_survivors: got 65537"));
  EXPECT_THAT(error_for("requird", true), HasSubstr("did you mean 'required'?"));
}

TEST_F(ClientConfigTest, SaysThatThereIsNoFile) {
  EXPECT_THAT(test::error_of([&] { load_client_config(folder / "gone.json"); }), HasSubstr("gone.json: no such file"));
}

TEST_F(ClientConfigTest, TakesTheListedExamplesInTheirOrder) {
  document["examples"] = "mine.json";
  test::write_file(folder / "mine.json", "[7, 0, 29, 3]");
  const LocalData data = load_local_data(load());
  EXPECT_THAT(data.shard, ElementsAre(7U, 0U, 29U, 3U));
  EXPECT_EQ(data.shape.classes, 3);
}

TEST_F(ClientConfigTest, RefusesAListOfExamplesThatDoesNotFit) {
  document["examples"] = "mine.json";
  const auto error_for = [&](const std::string& list) {
    test::write_file(folder / "mine.json", list);
    return error();
  };
  EXPECT_THAT(error_for("[1, 2, 1]"), AllOf(HasSubstr("mine.json: 2: got 1"), HasSubstr("each example once")));
  EXPECT_THAT(error_for("[1, 30]"), AllOf(HasSubstr("mine.json: 1: got 30"), HasSubstr("from 0 to 29")));
  EXPECT_THAT(error_for("[-1]"), HasSubstr("got -1"));
  EXPECT_THAT(error_for("[1.5]"), HasSubstr("got 1.5"));
  EXPECT_THAT(error_for("[]"), HasSubstr("not empty"));
  EXPECT_THAT(error_for("{}"), HasSubstr("a list of numbers"));
  EXPECT_THAT(error_for("[1,"), HasSubstr("not valid JSON"));
  std::filesystem::remove(folder / "mine.json");
  EXPECT_THAT(error(), HasSubstr("mine.json"));
}

TEST_F(ClientConfigTest, RefusesAListOfExamplesThatIsTooLong) {
  document["examples"] = "mine.json";
  test::write_file(folder / "mine.json", "");
  std::filesystem::resize_file(folder / "mine.json", limits::kExamplesFileBytes + 1);
  EXPECT_THAT(error(), HasSubstr("the limit is 67108864"));
}

}  // namespace
}  // namespace fl
