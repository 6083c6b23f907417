// Promise: certificates are revoked and replaced while rounds go on.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "fl_core/base/file.h"
#include "tests/net_support/net/hostile_client.h"
#include "tests/net_support/net/loopback.h"
#include "tests/support/toy_model.h"

namespace fl {
namespace {

namespace fs = std::filesystem;
using test::HostileClient;
using test::Loopback;
using testing::HasSubstr;

class Revocation : public testing::Test {
 protected:
  Revocation() : federation_(experiment()) {
    federation_.config().limits.grace_s = 60;
  }

  static nlohmann::json experiment() {
    nlohmann::json document = test::toy_experiment();
    document["partition"] = {{"name", "iid"}, {"clients", 4}};
    document["rounds"] = 100'000;
    document["round"] = {{"cohort", 4}, {"deadline_s", 20}};
    document["devices"] = nlohmann::json::object();  // a deadline is only allowed where devices are slow
    document["evaluation"] = {{"every", 0}};
    return document;
  }
  void start(std::size_t clients) {
    federation_.config().clients.minimum = static_cast<std::int64_t>(clients);
    federation_.start_server();
    federation_.start_clients(0, clients);
    federation_.await_rounds(2);
  }
  std::size_t count(Outcome outcome) const {
    std::size_t total = 0;
    for (const RoundReport& report : federation_.reports()) total += report.count(outcome);
    return total;
  }
  /// The serial of the certificate that the aggregator shows.
  std::string shown_serial() {
    const TlsContext context(TlsRole::client, federation_.pki().client(3));
    return Probe::connect("127.0.0.1", federation_.port(), "127.0.0.1", context, std::chrono::seconds(60)).peer().serial;
  }

  Loopback federation_;
};

TEST_F(Revocation, EndsTheSessionOfAConnectedClient) {
  federation_.config().limits.grace_s = 0.2;
  start(3);
  const TlsFiles files = federation_.pki().client(3);
  const auto context = test::hostile_context(TlsRole::client, federation_.pki().client(2), files);
  EXPECT_TRUE(test::knock(federation_.port(), *context).answered) << "control: before it is revoked";
  HostileClient victim(federation_, 3);
  victim.await_task();
  federation_.pki().authority().revoke("client-3");
  // Nobody told the aggregator: it looks at the file itself. Nothing of this type comes, so this reads to the end.
  EXPECT_THAT(test::error_of([&] { victim.await(FrameType::grant); }), HasSubstr("'client-3' was revoked"));
  EXPECT_THROW(victim.probe().read_frame(std::chrono::seconds(10)), ProbeEnded);
  EXPECT_THAT(test::knock(federation_.port(), *context).words, HasSubstr("revoked"));
  // The round does not wait for it, although it never answered.
  federation_.await_rounds(2);
  EXPECT_EQ(count(Outcome::late), 0U);
}

TEST_F(Revocation, EndsADeployedClientForGood) {
  federation_.config().limits.grace_s = 0.2;
  start(3);
  federation_.start_client(3).await("connected");
  federation_.pki().authority().revoke("client-3");
  EXPECT_THAT(test::error_of([&] { federation_.client(3).wait(); }), HasSubstr("revoked"));
  federation_.await_rounds(2);
}

TEST_F(Revocation, AnOlderListIsNotBelieved) {
  const fs::path list = federation_.pki().authority().revocation_list();
  const std::string before = read_text_file(list, 1U << 20U);
  federation_.pki().authority().revoke("client-3");
  start(3);
  write_file_atomically(list, before);
  federation_.reload();
  federation_.await_rounds(2);
  const auto context = test::hostile_context(TlsRole::client, federation_.pki().client(2), federation_.pki().client(3));
  EXPECT_THAT(test::knock(federation_.port(), *context).words, HasSubstr("revoked"));
  // Nor after a restart: the number that was seen is in the journal.
  federation_.stop_server();
  EXPECT_THAT(test::error_of([&] { federation_.start_server(); }), HasSubstr("has seen number"));
}

TEST_F(Revocation, TheServersCertificateIsReplacedDuringARoundWithoutLoss) {
  start(4);
  const std::string old_serial = shown_serial();
  federation_.pki().authority().renew("server");
  federation_.reload();
  federation_.await_rounds(1);
  while (shown_serial() == old_serial) federation_.await_rounds(1);
  for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(federation_.client(i).count("connected"), 1U) << "sessions outlive the change";
  // Connections made from now on are made with the new one.
  federation_.proxy().close_all();
  for (std::size_t i = 0; i < 4; ++i) {
    federation_.client(i).await("connected");
    federation_.client(i).await("connected");
  }
  federation_.await_rounds(2);
  federation_.stop_server();
  EXPECT_EQ(count(Outcome::accepted), 4 * federation_.reports().size());
}

TEST_F(Revocation, AClientsCertificateIsReplacedWithoutLoss) {
  start(4);
  const std::string old_serial = read_certificate(federation_.pki().client(2).certificate).serial;
  federation_.pki().authority().renew("client-2");
  ASSERT_NE(read_certificate(federation_.pki().client(2).certificate).serial, old_serial);
  federation_.client(2).await("connected");
  federation_.proxy().close_all();  // the next connection shows the new one
  federation_.client(2).await("connected");
  federation_.pki().authority().revoke(old_serial);
  federation_.reload();
  federation_.await_rounds(5);
  federation_.stop_server();
  EXPECT_EQ(count(Outcome::accepted), 4 * federation_.reports().size());
}

TEST_F(Revocation, HalfWrittenFilesChangeNothing) {
  start(3);
  federation_.start_client(3).await("connected");
  const fs::path list = federation_.pki().authority().revocation_list();
  const std::string good = read_text_file(list, 1U << 20U);
  for (const std::string& bad : {std::string(), good.substr(0, good.size() / 2), std::string("not a list")}) {
    std::ofstream(list, std::ios::binary) << bad;
    federation_.reload();
    federation_.await_rounds(2);
  }
  std::ofstream(list, std::ios::binary) << good;
  federation_.pki().authority().revoke("client-3");
  EXPECT_THAT(test::error_of([&] { federation_.client(3).wait(); }), HasSubstr("revoked"));
}

}  // namespace
}  // namespace fl
