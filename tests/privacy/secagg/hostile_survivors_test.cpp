// A server that lies about who survived, or asks twice: the honest client aborts with the reason, and nothing leaves
// it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/privacy/secagg/hostile_server.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::HasSubstr;

void expect_survivors_refused(const std::string& reason, const std::function<void(SecAggSet&)>& change,
                              const History& history = {}) {
  Rig rig(6, complete());
  if (!history.empty()) rig.drop(history);
  rig.run(SecAggStep::input);
  SecAggSet survivors = decode_survivors(rig.round(), 6, rig.pending_for(0));
  change(survivors);
  EXPECT_THAT(refusal_of([&] { rig.client(0).confirm(encode_survivors(rig.round(), survivors)); }), HasSubstr(reason));
  expect_silent(rig, 0);
}

TEST(HostileServer, CannotInventOrHideSurvivors) {
  expect_survivors_refused("lists this client as dropped out, though it sent its vector",
                           [](SecAggSet& set) { set[0] = false; });
  expect_survivors_refused("3 of 6 clients survived; 4 are needed",
                           [](SecAggSet& set) { set[1] = set[2] = set[3] = false; });
  History history(6, SecAggStep::done);
  history[3] = SecAggStep::share;
  expect_survivors_refused(
      "lists client 1021 as a survivor, who did not share", [](SecAggSet& set) { set[3] = true; }, history);
}

/// 50 clients of which 15 may drop out: degree 16, threshold 2.
SecAggPlan large() { return plan_for(50, 15, ServerModel::curious); }

/// Just so many of client 0's neighbours that one less than the threshold is left.
std::vector<std::uint32_t> too_many_neighbours(Rig& rig) {
  const SecAggCohort& roster = *rig.server().roster();
  std::vector<std::uint32_t> neighbours = roster.neighbours(0);
  EXPECT_LT(neighbours.size(), 49U);
  neighbours.resize(neighbours.size() - roster.threshold() + 1);
  EXPECT_LE(neighbours.size(), 15U) << "the plan allows for them in all";
  return neighbours;
}

// As many drop-outs as planned, but all of them around one client, who would be left alone with the server's friends.
TEST(HostileServer, CannotTakeAClientsNeighboursAway) {
  {
    Rig rig(50, large());
    rig.run(SecAggStep::share);
    SecAggInbox inbox = decode_inbox(rig.round(), 50, rig.pending_for(0));
    for (const std::uint32_t place : too_many_neighbours(rig)) {
      inbox.sharers[place] = false;
      std::erase_if(inbox.boxes, [&](const SealedShares& box) { return box.peer == id_of(place); });
    }
    EXPECT_THAT(refusal_of([&] { rig.answer(SecAggStep::input, 0, encode_inbox(rig.round(), inbox)); }),
                HasSubstr("of this client's neighbours shared; "));
    expect_silent(rig, 0);
  }
  Rig rig(50, large());
  rig.run(SecAggStep::input);
  SecAggSet survivors(50, true);
  for (const std::uint32_t place : too_many_neighbours(rig)) survivors[place] = false;
  EXPECT_THAT(refusal_of([&] { rig.answer(SecAggStep::consistency, 0, encode_survivors(rig.round(), survivors)); }),
              HasSubstr("of this client's neighbours survived; "));
  expect_silent(rig, 0);
}

// Step 5: the signatures.

void expect_confirmations_refused(const SecAggPlan& plan, const std::string& reason,
                                  const std::function<void(Rig&, std::vector<SecAggSignature>&)>& change) {
  expect_refusal(plan, SecAggStep::unmask, reason, [&](Rig& rig, const SecAggBytes& honest) {
    auto signatures = decode_confirmations(rig.round(), honest);
    change(rig, signatures);
    return encode_confirmations(rig.round(), signatures);
  });
}

TEST(HostileServer, CannotLowerTheThreshold) {
  expect_confirmations_refused(complete(), "only 2 neighbours confirmed the survivors; 3 are needed",
                               [](Rig&, auto& signatures) { signatures.resize(2); });
  expect_confirmations_refused(complete(), "only 0 neighbours", [](Rig&, auto& signatures) { signatures.clear(); });
}

TEST(HostileServer, CannotCountSignaturesThatAreNone) {
  expect_confirmations_refused(complete(), "client 1007 did not sign the survivors",
                               [](Rig&, auto& signatures) { signatures[0].signature[5] ^= std::byte{1}; });
  expect_confirmations_refused(complete(), "did not sign the survivors",
                               [](Rig&, auto& signatures) { signatures[0].signature = signatures[1].signature; });
  expect_confirmations_refused(complete(), "twice or out of order", [](Rig&, auto& signatures) {
    signatures.resize(2);
    signatures.push_back(signatures[1]);
  });
  expect_confirmations_refused(
      complete(), "confirmed by client 1000, who is no surviving neighbour", [](Rig& rig, auto& signatures) {
        signatures.insert(signatures.begin(),
                          {id_of(0), decode_confirmation(rig.round(), rig.sent(0)[SecAggStep::consistency])});
      });
  expect_confirmations_refused(complete(), "confirmed by client 9, who is no surviving neighbour",
                               [](Rig&, auto& signatures) {
                                 signatures.insert(signatures.begin(), {9, signatures[0].signature});
                               });
  // In the sparse graph one client is no neighbour of client 0: its signature is good and counts for nothing.
  expect_confirmations_refused(sparse(), "who is no surviving neighbour", [](Rig& rig, auto& signatures) {
    for (std::size_t i = 1; i < 6; ++i) {
      const bool listed =
          std::ranges::any_of(signatures, [&](const SecAggSignature& each) { return each.client == id_of(i); });
      if (!listed)
        signatures.push_back({id_of(i), decode_confirmation(rig.round(), rig.sent(i)[SecAggStep::consistency])});
    }
    std::ranges::sort(signatures, {}, &SecAggSignature::client);
  });
  // A signature from another round.
  expect_confirmations_refused(complete(), "client 1007 did not sign the survivors", [](Rig&, auto& signatures) {
    SecAggRound round = some_round();
    round.round = 4;
    Rig other(6, complete(), round);
    other.run(SecAggStep::consistency);
    signatures[0].signature = decode_confirmation(round, other.sent(1)[SecAggStep::consistency]);
  });
  // An advert's signature is for another purpose.
  expect_confirmations_refused(complete(), "client 1007 did not sign the survivors", [](Rig& rig, auto& signatures) {
    signatures[0].signature = adverts_of(rig)[1].signature;
  });
}

// A friend that dropped out cannot make up for neighbours that are missing.
TEST(HostileServer, CannotCountASignatureOfOneThatDroppedOut) {
  History history(6, SecAggStep::done);
  history[3] = SecAggStep::input;
  Rig rig(6, complete());
  rig.drop(history).run(SecAggStep::consistency);
  SecAggSet survivors(6, true);
  survivors[3] = false;
  const SecAggDigest statement = rig.server().roster()->survivor_statement(SecAggSet(6, true), survivors);
  auto signatures = decode_confirmations(rig.round(), rig.pending_for(0));
  signatures.insert(signatures.begin() + 2, {id_of(3), identity_of(3).sign(kSurvivorDomain, statement)});
  EXPECT_THAT(refusal_of([&] { rig.client(0).unmask(encode_confirmations(rig.round(), signatures)); }),
              HasSubstr("confirmed by client 1021, who is no surviving neighbour"));
  expect_silent(rig, 0);
}

/// How many shares of each kind have left the honest clients, by owner.
std::map<ClientId, std::array<std::uint32_t, 3>> leaked_shares(Rig& rig, std::size_t clients) {
  std::map<ClientId, std::array<std::uint32_t, 3>> leaked;
  for (std::size_t i = 0; i < clients; ++i) {
    const auto sent = rig.sent(i).find(SecAggStep::unmask);
    if (sent == rig.sent(i).end()) continue;
    for (const RevealedShare& share : decode_reveal(rig.round(), sent->second))
      leaked[share.owner][static_cast<std::size_t>(share.kind)]++;
  }
  return leaked;
}

// Every way to tell some of 6 clients that client `victim` lives and the others that it left, with the signatures that
// were given.
TEST(HostileServer, CannotHaveAClientAliveForSomeAndDeadForOthers) {
  int aborted = 0;
  for (const std::size_t victim : {std::size_t{0}, std::size_t{3}}) {
    for (std::size_t told_dead = 1; told_dead < 64; ++told_dead) {
      if ((told_dead >> victim & 1U) != 0) continue;  // it would not confirm its own death
      Rig rig(6, complete());
      rig.run(SecAggStep::input);
      SecAggSet sets[2] = {SecAggSet(6, true), SecAggSet(6, true)};
      sets[1][victim] = false;
      const auto group = [&](std::size_t i) { return told_dead >> i & 1U; };
      std::map<std::size_t, Signature> signatures;
      for (std::size_t i = 0; i < 6; ++i) {
        signatures[i] =
            decode_confirmation(rig.round(), rig.client(i).confirm(encode_survivors(rig.round(), sets[group(i)])));
      }
      for (std::size_t i = 0; i < 6; ++i) {
        std::vector<SecAggSignature> matching;
        for (std::size_t j = 0; j < 6; ++j) {
          if (j != i && group(j) == group(i) && sets[group(i)][j]) matching.push_back({id_of(j), signatures[j]});
        }
        const std::string refusal = refusal_of([&] {
          rig.sent(i)[SecAggStep::unmask] = rig.client(i).unmask(encode_confirmations(rig.round(), matching));
        });
        if (matching.size() >= 3) {
          EXPECT_EQ(refusal, "");
        } else {
          EXPECT_THAT(refusal, HasSubstr("neighbours confirmed the survivors; 3 are needed"));
          rig.sent(i).erase(SecAggStep::unmask);
          ++aborted;
        }
      }
      for (const auto& [owner, kinds] : leaked_shares(rig, 6)) {
        EXPECT_FALSE(kinds[1] >= 3 && kinds[2] >= 3) << "both secrets of client " << owner << " with " << told_dead;
      }
    }
  }
  EXPECT_GT(aborted, 0);
}

TEST(HostileServer, CannotMixSignaturesOnDifferentSurvivors) {
  Rig rig(6, complete());
  rig.run(SecAggStep::input);
  SecAggSet everybody(6, true);
  SecAggSet without_5 = everybody;
  without_5[5] = false;
  std::vector<SecAggSignature> signatures;
  for (std::size_t i = 0; i < 6; ++i) {
    const SecAggBytes signed_set = rig.client(i).confirm(encode_survivors(rig.round(), i < 3    ? everybody
                                                                                       : i == 5 ? everybody
                                                                                                : without_5));
    if (i != 0) signatures.push_back({id_of(i), decode_confirmation(rig.round(), signed_set)});
  }
  EXPECT_THAT(refusal_of([&] { rig.client(0).unmask(encode_confirmations(rig.round(), signatures)); }),
              HasSubstr("client 1021 did not sign the survivors that this client was told"));
  expect_silent(rig, 0);
}

// Clients 0 and 1 are each told that the other did not share, so no mask is between them. They would sign other sharers
// than the rest, and nobody unmasks with them.
TEST(HostileServer, CannotTakeMasksAwayFromBetweenTwoClients) {
  Rig rig(6, complete());
  rig.tamper([&](SecAggStep step, std::size_t index, SecAggBytes& bytes) {
    if (step != SecAggStep::input || index > 1) return;
    SecAggInbox inbox = decode_inbox(rig.round(), 6, bytes);
    inbox.sharers[1 - index] = false;
    std::erase_if(inbox.boxes, [&](const SealedShares& box) { return box.peer == id_of(1 - index); });
    bytes = encode_inbox(rig.round(), inbox);
  });
  rig.run(SecAggStep::input);
  std::vector<Signature> signatures;
  for (std::size_t i = 2; i < 6; ++i) {
    signatures.push_back(decode_confirmation(rig.round(), rig.answer(SecAggStep::consistency, i, rig.pending_for(i))));
  }
  EXPECT_THAT(refusal_of([&] { rig.client(1).confirm(rig.pending_for(1)); }),
              HasSubstr("client 1000 as a survivor, who did not share"));
  SecAggSet without_1(6, true);
  without_1[1] = false;
  rig.client(0).confirm(encode_survivors(rig.round(), without_1));
  std::vector<SecAggSignature> list;
  for (std::size_t i = 2; i < 6; ++i) list.push_back({id_of(i), signatures[i - 2]});
  EXPECT_THAT(refusal_of([&] { rig.client(0).unmask(encode_confirmations(rig.round(), list)); }),
              HasSubstr("did not sign the survivors"));
  expect_silent(rig, 0);
  expect_silent(rig, 1);
}

// After its one answer a client gives nothing, whichever set it is asked about: not the other share, not the same
// again.
TEST(HostileServer, GetsOneAnswerOfAClientEver) {
  Rig rig(6, complete());
  ASSERT_TRUE(rig.run().has_value());
  SecAggSet without_1(6, true);
  without_1[1] = false;
  Rig again(6, complete());
  ASSERT_TRUE(again.run().has_value());
  EXPECT_EQ(again.client(0).step(), SecAggStep::done);
  EXPECT_THAT(refusal_of([&] { again.client(0).confirm(encode_survivors(rig.round(), without_1)); }),
              HasSubstr("the survivors came where nothing more should have"));
  EXPECT_THAT(refusal_of([&] { rig.client(0).unmask(rig.received(0)[SecAggStep::unmask]); }),
              HasSubstr("the confirmations came where nothing more should have"));
  expect_silent(rig, 0);
  expect_silent(again, 0);
}

// The client as a state machine: in every state every call but one is refused, and a refusal is final. So all sequences
// of calls reveal at most once, after one confirmation, after one vector.
TEST(HostileServer, CannotChangeTheOrderOfSteps) {
  Rig recorded(6, complete());
  ASSERT_TRUE(recorded.run().has_value());
  for (int done = 0; done <= 5; ++done) {
    for (int call = 0; call < 5; ++call) {
      if (call == done) continue;
      // The same seeds give the same messages, so those of the record are good ones for this client.
      Rig rig(6, complete());
      rig.received(0) = recorded.received(0);
      for (int step = 0; step < done; ++step) rig.answer(kSteps[step], 0, recorded.received(0)[kSteps[step]]);
      const SecAggBytes message = recorded.received(0)[kSteps[call]];
      EXPECT_THAT(refusal_of([&] { rig.answer(kSteps[call], 0, message); }), HasSubstr(" came where "))
          << done << " then " << call;
      expect_silent(rig, 0);
    }
  }
}

TEST(HostileServer, CannotTalkAClientBelowItsOwnersPolicy) {
  const SecAggPlan plan = complete();
  const Directory directory(6);
  const auto join = [&](const SecAggPolicy& policy, SecAggPlan proposed) {
    return refusal_of([&] {
      const SecAggClient client(id_of(0), some_round(), proposed, policy, identity_of(0), directory, fixed_key(4, 0));
    });
  };
  EXPECT_EQ(join({0, 40, 3, false}, plan), "");
  EXPECT_THAT(join({0.1, 40, 3, false}, plan), HasSubstr("adversary_rate 0.000000; this client insists on 0.100000"));
  EXPECT_THAT(join({0, 64, 3, false}, plan), HasSubstr("security_bits 40; this client insists on 64"));
  EXPECT_THAT(join({0, 40, 10, false}, plan), HasSubstr("minimum_survivors 3; this client insists on 10"));
  EXPECT_THAT(join({0, 40, 3, false}, plan_for(6, 2, ServerModel::curious)), HasSubstr("server \"curious\""));
}

}  // namespace
}  // namespace fl
