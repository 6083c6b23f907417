// The server of secure aggregation under clients that send anything, at any time. An input is a list of acts (1 byte
// each): close the step, or a client (1) sends its message of a step (1), as it is or made into another
// (secagg_script.h).
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <vector>

#include "fl_core/base/error.h"
#include "tests/fuzz/libfuzzer/secagg_script.h"

namespace fl {
namespace {

using namespace secagg_test;

constexpr int kMaximumActs = 60;

class Round {
 public:
  Round() : rig_(kClients, plan()) {}

  void act(Script& script) {
    const std::uint8_t what = script.byte();
    if (what % 8 == 7) return close();
    // Now and then a client that nobody knows, or a message of another step.
    const std::size_t sender = script.byte() % (kClients + 1);
    const SecAggStep open = rig_.server().step();
    const SecAggStep step = what % 8 == 6 || open > SecAggStep::unmask ? kSteps[script.byte() % 5] : open;
    bool altered = false;
    const SecAggBytes& honest = recorded().sent(sender % kClients)[step];
    const SecAggBytes message = what % 8 < 4 ? honest : script.message(honest, altered);
    send(step, sender, message, altered);
  }

  /// All that are due send their honest message, and the step is closed.
  void honest_step() {
    const SecAggStep step = rig_.server().step();
    if (step > SecAggStep::unmask) return;
    for (std::size_t client = 0; client < kClients; ++client) send(step, client, recorded().sent(client)[step], false);
    close();
  }

 private:
  void send(SecAggStep step, std::size_t sender, const SecAggBytes& message, bool altered) {
    try {
      const SecAggReceipt receipt = rig_.hand_in(step, sender, message);
      FL_CHECK(sender < kClients || receipt != SecAggReceipt::counted, "a stranger's message was counted");
      if (!altered || receipt != SecAggReceipt::counted) return;
      FL_CHECK(step == SecAggStep::share || step == SecAggStep::input || step == SecAggStep::unmask,
               "something was counted that its sender did not sign");
      changed_input_ |= step == SecAggStep::input;
    } catch (const ProtocolError&) {
    }
  }

  void close() {
    const SecAggStep step = rig_.server().step();
    if (step > SecAggStep::unmask) return;
    if (step == SecAggStep::unmask) return finish();
    const auto mail = rig_.close(step);
    FL_CHECK((rig_.server().step() == SecAggStep::aborted) == mail.empty(), "a step closed, and nobody is asked");
    FL_CHECK(mail.empty() != rig_.server().abort_reason().empty(), "aborted without a reason");
  }

  /// False shares are repaired or end the round: a sum is that of the vectors that were counted.
  void finish() {
    const auto sum = rig_.server().finish();
    FL_CHECK(sum.has_value() || !rig_.server().abort_reason().empty(), "no sum and no reason");
    if (!sum || changed_input_) return;
    FL_CHECK(sum->values == rig_.sum_of(sum->survivors), "a sum that is none of the survivors'");
  }

  Rig rig_;
  bool changed_input_ = false;
};

void fuzz_one(std::span<const std::byte> input) {
  Script script(input);
  Round round;
  // Most sequences of acts never get past the first step.
  for (unsigned honest = script.byte() % 5; honest > 0; --honest) round.honest_step();
  for (int acts = 0; acts < kMaximumActs && script.has_more(); ++acts) round.act(script);
  for (int steps = 0; steps < 5; ++steps) round.honest_step();
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
