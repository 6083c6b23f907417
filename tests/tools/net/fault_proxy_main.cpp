// fl_fault_proxy TARGET_PORT SCRIPT.JSON: the fault proxy (tests/net_support/net/fault_proxy.h) as a program, for tests of the
// real programs. Prints {"port": …} and runs until its standard input ends; then it prints what it did. Each line of standard
// input is an order: {"script": {…}}, {"target": PORT}, {"pause": true}, {"pause": false}, {"close_all": true}.
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "tests/net_support/net/fault_proxy.h"

namespace {

using fl::test::FaultProxy;
using nlohmann::json;

std::uint16_t port_of(const json& value, const std::string& path) {
  if (!value.is_number_unsigned() || value.get<std::uint64_t>() - 1 >= 65535) fl::bad_value(path, value, "a port from 1 to 65535");
  return value.get<std::uint16_t>();
}

void obey(FaultProxy& proxy, const json& order) {
  for (const auto& [key, value] : order.items()) {
    if (key == "script") proxy.change(value);
    else if (key == "target") proxy.retarget(port_of(value, key));
    else if (key == "pause" && value.is_boolean()) value.get<bool>() ? proxy.pause() : proxy.go_on();
    else if (key == "close_all" && value == true) proxy.close_all();
    else fl::bad_value(key, value, "script, target, pause or close_all");
  }
}

void print(const json& line) {
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 3) throw fl::ConfigError("usage: fl_fault_proxy TARGET_PORT SCRIPT.JSON");
    FaultProxy proxy(port_of(fl::parse_json(argv[1], "TARGET_PORT"), "TARGET_PORT"), fl::read_json_file(argv[2]));
    print({{"port", proxy.port()}});
    for (std::string line; std::getline(std::cin, line);) obey(proxy, fl::parse_json(line, "order"));
    const auto counts = proxy.counts();
    print({{"connections", counts.connections}, {"refused", counts.refused}, {"unreachable", counts.unreachable}, {"resets", counts.resets},
           {"cuts", counts.cuts}, {"half_open", counts.half_open}, {"corrupted", counts.corrupted}, {"duplicated", counts.duplicated},
           {"bytes_up", counts.bytes_up}, {"bytes_down", counts.bytes_down}});
    return 0;
  } catch (const fl::Error& error) {
    std::fprintf(stderr, "fl_fault_proxy: %s\n", error.what());
    return static_cast<int>(error.exit_code());
  }
}
