// Clients that lie, and what the server makes of it: that client's message does not count, and the others' round goes
// on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/privacy/secagg/secagg_rig.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::HasSubstr;

SecAggPlan plan() { return plan_for(6, 2); }  // complete graph: threshold 3 of 5, at least 4 survivors

/// Runs a round in which what client 3 sends in `step` is replaced, and client 3 is then gone. The message must be
/// refused with `reason`, and the others must have their sum.
void expect_dropped(SecAggStep step, const std::string& reason,
                    const std::function<SecAggBytes(Rig&, const SecAggBytes&)>& attack) {
  History history(6, SecAggStep::done);
  history[3] = step;
  Rig honest(6, plan());
  ASSERT_TRUE(honest.run().has_value());
  Rig rig(6, plan());
  rig.drop(history);
  // The attack goes in before client 4's answer of that step does.
  bool refused = false;
  rig.tamper([&](SecAggStep at, std::size_t index, SecAggBytes&) {
    if (at != step || index != 4 || refused) return;
    const SecAggBytes message = attack(rig, honest.sent(3)[step]);
    EXPECT_THAT(refusal_of([&] { rig.hand_in(step, 3, message); }), HasSubstr(reason));
    refused = true;
  });
  const auto sum = rig.run();
  EXPECT_TRUE(refused);
  ASSERT_TRUE(sum.has_value()) << reason << ": " << rig.server().abort_reason();
  EXPECT_EQ(sum->values, rig.sum_of(rig.still_there(SecAggStep::input)));
}

void expect_advert_dropped(const std::string& reason, const std::function<void(Rig&, SecAggAdvert&)>& change,
                           std::size_t signer = 3) {
  expect_dropped(SecAggStep::advertise, reason, [&](Rig& rig, const SecAggBytes& honest) {
    SecAggAdvert advert = decode_advert(rig.round(), honest);
    change(rig, advert);
    if (signer != 99)
      advert.signature =
          identity_of(signer).sign(kAdvertDomain, signed_bytes(advert, digest_of(rig.round(), rig.plan())));
    return encode_advert(rig.round(), advert);
  });
}

TEST(HostileClient, CannotMakeOthersAbortByItsAdvert) {
  expect_advert_dropped(
      "is not signed by its enrolled identity", [](Rig&, SecAggAdvert& advert) { advert.mask_key[3] ^= std::byte{1}; },
      99);
  expect_advert_dropped(
      "is not signed by its enrolled identity", [](Rig&, SecAggAdvert&) {}, 2);
  expect_advert_dropped("sent an advert of client 1014", [](Rig&, SecAggAdvert& advert) { advert.client = id_of(2); });
  expect_advert_dropped("a key of low order", [](Rig&, SecAggAdvert& advert) { advert.sealing_key = PublicKey{}; });
  expect_advert_dropped("a key of another client", [](Rig& rig, SecAggAdvert& advert) {
    advert.mask_key = decode_advert(rig.round(), rig.sent(2)[SecAggStep::advertise]).sealing_key;
  });
  expect_advert_dropped("one key for two purposes",
                        [](Rig&, SecAggAdvert& advert) { advert.mask_key = advert.sealing_key; });
}

TEST(HostileClient, CannotShareWithStrangersOrLeaveNeighboursOut) {
  const auto change_boxes = [](const std::function<void(std::vector<SealedShares>&)>& change) {
    expect_dropped(SecAggStep::share, "shares with others than its neighbours",
                   [&](Rig& rig, const SecAggBytes& honest) {
                     SecAggShares shares = decode_shares(rig.round(), honest);
                     change(shares.boxes);
                     return encode_shares(rig.round(), shares);
                   });
  };
  change_boxes([](auto& boxes) { boxes.pop_back(); });
  change_boxes([](auto& boxes) { boxes.back().peer = 9000; });
  change_boxes([](auto& boxes) {
    boxes[3].peer = id_of(3);
    boxes.erase(boxes.begin() + 4);
  });
}

TEST(HostileClient, CannotSendAVectorOfAnotherSize) {
  expect_dropped(SecAggStep::input, "has 19 bytes of values; 5 values of 32 bits have 20",
                 [](Rig&, const SecAggBytes& honest) { return SecAggBytes(honest.begin(), honest.end() - 1); });
  expect_dropped(SecAggStep::input, "bytes of values", [](Rig&, SecAggBytes honest) {
    honest.push_back(std::byte{0});
    return honest;
  });
}

TEST(HostileClient, CannotConfirmOtherSurvivors) {
  expect_dropped(SecAggStep::consistency, "did not sign the survivors that it was told",
                 [](Rig& rig, const SecAggBytes&) {
                   SecAggSet others(6, true);
                   others[1] = false;
                   const SecAggDigest statement = rig.server().roster()->survivor_statement(SecAggSet(6, true), others);
                   return encode_confirmation(rig.round(), identity_of(3).sign(kSurvivorDomain, statement));
                 });
}

TEST(HostileClient, CannotRevealOtherSharesThanAreDue) {
  const auto change_shares = [](const std::function<void(std::vector<RevealedShare>&)>& change) {
    expect_dropped(SecAggStep::unmask, "reveals other shares than those that are due",
                   [&](Rig& rig, const SecAggBytes& honest) {
                     std::vector<RevealedShare> shares = decode_reveal(rig.round(), honest);
                     change(shares);
                     return encode_reveal(rig.round(), shares);
                   });
  };
  change_shares([](auto& shares) { shares[1].kind = ShareKind::mask_key; });
  change_shares([](auto& shares) { shares.pop_back(); });
  change_shares([](auto& shares) { shares.back().owner = 9000; });
}

/// A whole round in which client 3 reveals what `change` makes of its shares.
std::optional<SecAggSum> round_with_false_shares(Rig& rig,
                                                 const std::function<void(std::vector<RevealedShare>&)>& change) {
  rig.run(SecAggStep::consistency);
  for (std::size_t i = 0; i < 6; ++i) {
    if (rig.pending_for(i).empty()) continue;
    SecAggBytes message = rig.client(i).unmask(rig.pending_for(i));
    if (i == 3) {
      std::vector<RevealedShare> shares = decode_reveal(rig.round(), message);
      change(shares);
      message = encode_reveal(rig.round(), shares);
    }
    EXPECT_EQ(rig.hand_in(SecAggStep::unmask, i, message), SecAggReceipt::counted);
  }
  return rig.server().finish();
}

// The seeds of survivors and the mask key of one that left are both checked against what their owner committed to.
TEST(HostileClient, CannotSpoilTheSumByFalseShares) {
  for (const bool has_dropped : {false, true}) {
    for (const std::size_t byte : {std::size_t{3}, std::size_t{35}}) {
      Rig rig(6, plan());
      History history(6, SecAggStep::done);
      if (has_dropped) history[0] = SecAggStep::input;
      rig.drop(history);
      const auto sum = round_with_false_shares(rig, [&](auto& shares) {
        for (RevealedShare& share : shares) share.value[byte] ^= std::byte{1};
      });
      ASSERT_TRUE(sum.has_value()) << rig.server().abort_reason();
      EXPECT_EQ(sum->values, rig.sum_of(sum->survivors));
    }
  }
}

// Without a spare share there is nothing to repair with: no sum, rather than a wrong one.
TEST(HostileClient, CannotPassAFalseShareOffWhereEveryShareCounts) {
  for (const bool valid : {true, false}) {
    Rig rig(6, plan());
    rig.run(SecAggStep::consistency);
    std::vector<std::size_t> answering{1, 2, 3, 4};
    for (const std::size_t i : answering) {
      SecAggBytes message = rig.client(i).unmask(rig.pending_for(i));
      if (i == 3) {
        std::vector<RevealedShare> shares = decode_reveal(rig.round(), message);
        // A number that is no residue, or one that is another.
        for (RevealedShare& share : shares) valid ? share.value[35] ^= std::byte{1} : share.value[0] = std::byte{0xff};
        message = encode_reveal(rig.round(), shares);
      }
      rig.hand_in(SecAggStep::unmask, i, message);
    }
    EXPECT_FALSE(rig.server().finish().has_value());
    EXPECT_THAT(rig.server().abort_reason(), HasSubstr("the shares of client 1007 do not give its mask seed"));
  }
}

TEST(HostileClient, IsDiscardedWhenItRepeatsOrWasNotAsked) {
  Rig rig(6, plan());
  rig.run(SecAggStep::advertise);
  const SecAggBytes advert = rig.sent(2)[SecAggStep::advertise];
  EXPECT_EQ(rig.hand_in(SecAggStep::advertise, 2, advert), SecAggReceipt::late);
  const SecAggBytes shares = rig.answer(SecAggStep::share, 2, rig.pending_for(2));
  EXPECT_EQ(rig.hand_in(SecAggStep::share, 2, shares), SecAggReceipt::counted);
  EXPECT_EQ(rig.hand_in(SecAggStep::share, 2, shares), SecAggReceipt::repeated);
  EXPECT_EQ(rig.hand_in(SecAggStep::share, 17, shares), SecAggReceipt::stranger);
  EXPECT_THAT(refusal_of([&] { rig.hand_in(SecAggStep::input, 2, shares); }),
              HasSubstr("client 1014 answers a question that was not asked yet"));
  SecAggServer fresh(rig.round(), rig.plan(), rig.directory());
  EXPECT_EQ(fresh.add_advert(id_of(2), advert), SecAggReceipt::counted);
  EXPECT_EQ(fresh.add_advert(id_of(2), advert), SecAggReceipt::repeated);
  EXPECT_EQ(fresh.add_advert(id_of(40), advert), SecAggReceipt::stranger);
  EXPECT_THAT(refusal_of([&] { fresh.add_shares(id_of(2), shares); }), HasSubstr("was not asked yet"));
}

// It left before it shared: later answers are a stranger's.
TEST(HostileClient, CannotComeBackAfterAStepItMissed) {
  History history(6, SecAggStep::done);
  history[2] = SecAggStep::share;
  Rig rig(6, plan());
  rig.drop(history).run(SecAggStep::share);
  const SecAggBytes vector = rig.answer(SecAggStep::input, 1, rig.pending_for(1));
  EXPECT_EQ(rig.hand_in(SecAggStep::input, 2, vector), SecAggReceipt::stranger);
  EXPECT_EQ(rig.hand_in(SecAggStep::input, 1, vector), SecAggReceipt::counted);
}

}  // namespace
}  // namespace fl
