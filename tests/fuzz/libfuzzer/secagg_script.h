#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "fl_core/base/error.h"
#include "tests/privacy/secagg/secagg_rig.h"

/// How an input of the two secure aggregation targets is read: bit by bit, and as a message that is put together from
/// an honest one.
namespace fl::secagg_test {

class Script {
 public:
  explicit Script(std::span<const std::byte> input) : rest_(input) {}

  bool has_more() const { return !rest_.empty(); }
  /// 0 behind the end.
  std::uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto first = std::to_integer<std::uint8_t>(rest_.front());
    rest_ = rest_.subspan(1);
    return first;
  }
  SecAggView take(std::size_t bytes) {
    const SecAggView piece = rest_.first(std::min(bytes, rest_.size()));
    rest_ = rest_.subspan(piece.size());
    return piece;
  }

  /// How it is made (1 byte): edits of `honest`, or bytes behind its head, or bytes alone. `altered` tells whether it
  /// is another.
  SecAggBytes message(const SecAggBytes& honest, bool& altered) {
    const std::uint8_t how = byte();
    SecAggBytes bytes = honest;
    if (how % 4 < 2) {
      for (unsigned edits = how / 4 % 8; edits > 0; --edits) edit(bytes);
    } else {
      bytes.resize(how % 4 == 2 ? std::min(honest.size(), kSecAggHeaderBytes) : 0);
      const SecAggView tail = take(std::size_t{byte()} * 4);
      bytes.insert(bytes.end(), tail.begin(), tail.end());
    }
    altered = bytes != honest;
    return bytes;
  }

 private:
  /// What is done (1 byte), where (2, little-endian, modulo the size) and a value (1).
  void edit(SecAggBytes& bytes) {
    const std::uint8_t what = byte();
    const unsigned low = byte();
    const std::size_t at = (low | unsigned{byte()} << 8) % (bytes.size() + 1);
    const std::uint8_t value = byte();
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (what % 4) {
      case 0:
        if (at < bytes.size()) bytes[at] ^= static_cast<std::byte>(value);
        break;
      case 1:
        if (at < bytes.size()) bytes[at] = static_cast<std::byte>(value);
        break;
      case 2:
        bytes.erase(place, place + std::min<std::ptrdiff_t>(value, bytes.end() - place));
        break;
      default:
        bytes.insert(place, value, std::byte{0});
        break;
    }
  }

  std::span<const std::byte> rest_;
};

inline constexpr SecAggStep kSteps[] = {SecAggStep::advertise, SecAggStep::share, SecAggStep::input,
                                        SecAggStep::consistency, SecAggStep::unmask};

/// Everybody is a neighbour of everybody: threshold 2 of 3, one drop-out planned.
inline constexpr std::size_t kClients = 4;
inline SecAggPlan plan() { return plan_for(kClients, 1); }

/// A round in which everybody was honest and stayed.
inline Rig& recorded() {
  static Rig rig(kClients, plan());
  static const bool summed = rig.run().has_value();
  FL_CHECK(summed, "the honest round has no sum");
  return rig;
}

}  // namespace fl::secagg_test
