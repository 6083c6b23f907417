#include "fl_core/config/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/base/error.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using testing::HasSubstr;

TEST(Address, SplitsHostAndPort) {
  const auto expect = [](const std::string& text, const std::string& host, int port) {
    const Address address = parse_address(text, "listen");
    EXPECT_EQ(address.host, host) << text;
    EXPECT_EQ(address.port, port) << text;
  };
  expect("fl.example.org:7443", "fl.example.org", 7443);
  expect("my_host-2:1", "my_host-2", 1);
  expect("0.0.0.0:0", "0.0.0.0", 0);
  expect("127.0.0.1:65535", "127.0.0.1", 65535);
  expect("[::1]:9464", "::1", 9464);
  expect("[2001:db8::7]:7443", "2001:db8::7", 7443);
  expect("[fe80::1%eth0]:7443", "fe80::1%eth0", 7443);
}

TEST(Address, RefusesAnythingElseWithWhatWasExpected) {
  const std::string embedded_zero("a\0b:1", 5);
  for (const std::string& text :
       {std::string(), std::string("localhost"), std::string("localhost:"), std::string(":9464"), std::string("a:65536"),
        std::string("a:-1"), std::string("a:+1"), std::string("a: 1"), std::string("a:1 "), std::string("a:1x"), std::string("a:0x10"),
        std::string("a b:1"), std::string("http://a:1"), std::string("a/b:1"), std::string("256.0.0.1:1"), std::string("1.2.3:1"),
        std::string("[]:1"), std::string("[::1]"), std::string("[::1:1"), std::string("[localhost]:1"), std::string("[127.0.0.1]:1"),
        std::string("[::1%]:1"), std::string("[::1%a b]:1"), std::string("*:1"), std::string("a:b:1"), std::string(300, 'a') + ":1", embedded_zero}) {
    EXPECT_THAT(error_of([&] { parse_address(text, "health.listen"); }),
                testing::AllOf(testing::StartsWith("health.listen: got \""), HasSubstr("expected a host and a port from 0 to 65535")))
        << text;
  }
  EXPECT_THROW(parse_address("localhost", "server"), ConfigError);
}

TEST(Address, AsksForBracketsAroundIpv6) {
  // "::1:9464" is a whole IPv6 address too, so a port after it cannot be told apart.
  for (const char* text : {"::1:9464", "2001:db8::7:7443", "2001:db8:0:0:0:0:0:7:7443", "::1"}) {
    EXPECT_THAT(error_of([&] { parse_address(text, "server"); }), HasSubstr("an IPv6 address in brackets and a port")) << text;
  }
}

}  // namespace
}  // namespace fl
