#pragma once

#include <cstdint>
#include <string>

namespace fl {

/// "812 B", "1.5 MB": decimal units, three significant digits.
std::string human_bytes(double bytes);
/// "0.42 s", "12 s", "3 min 20 s", "2 h 05 min".
std::string human_seconds(double seconds);
/// "1 663 370".
std::string human_count(std::int64_t count);
/// So many significant digits: "7.12", "0.0031", "1.2e+08", "inf".
std::string human_number(double value, int digits = 3);
/// 0.8461 -> "84.6 %".
std::string percent(double share);

}  // namespace fl
