// A client of secure aggregation that was honest with its server up to a step, and then gets anything: it goes on, or
// aborts with a reason and answers nothing more. An input is the step (1 byte) and a message (secagg_script.h), then
// those of the steps that follow.
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>

#include "fl_core/base/error.h"
#include "tests/fuzz/libfuzzer/secagg_script.h"

namespace fl {
namespace {

using namespace secagg_test;

/// Nothing comes out any more, whatever is asked.
void check_silent(Rig& rig) {
  FL_CHECK(rig.client(0).step() == SecAggStep::aborted && !rig.client(0).abort_reason().empty(),
           "refused, and not aborted");
  for (const SecAggStep step : kSteps) {
    const std::string reason = refusal_of([&] { rig.answer(step, 0, recorded().received(0)[step]); });
    FL_CHECK(reason == rig.client(0).abort_reason(), "an aborted client answers, or with another reason");
  }
}

/// One share of each neighbour at most, whatever the server claimed about it.
void check_reveal(const Rig& rig, const SecAggBytes& answer) {
  std::set<ClientId> owners;
  for (const RevealedShare& share : decode_reveal(rig.round(), answer)) {
    FL_CHECK(share.owner != id_of(0) && owners.insert(share.owner).second, "two shares of one client");
  }
}

void fuzz_one(std::span<const std::byte> input) {
  Script script(input);
  SecAggStep step = kSteps[1 + script.byte() % 4];
  Rig rig(kClients, plan());
  for (auto before = SecAggStep::advertise; before < step; before = Rig::next(before))
    rig.answer(before, 0, recorded().received(0)[before]);
  for (bool is_honest = true; step <= SecAggStep::unmask; step = Rig::next(step)) {
    bool altered = false;
    const SecAggBytes message = script.message(recorded().received(0)[step], altered);
    is_honest &= !altered;
    SecAggBytes answer;
    if (!refusal_of([&] { answer = rig.answer(step, 0, message); }).empty()) {
      FL_CHECK(!is_honest, "an honest server was refused");
      check_silent(rig);
      return;
    }
    FL_CHECK(!answer.empty() && rig.client(0).step() == Rig::next(step), "neither refused nor answered");
    FL_CHECK(!is_honest || answer == recorded().sent(0)[step], "the same messages, and another answer");
    if (step == SecAggStep::unmask) check_reveal(rig, answer);
  }
}

}  // namespace
}  // namespace fl

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  fl::fuzz_one(std::as_bytes(std::span(data, size)));
  return 0;
}
