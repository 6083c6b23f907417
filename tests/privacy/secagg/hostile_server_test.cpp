// A server that lies, at every step: the honest client aborts with the reason, and nothing leaves it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/privacy/secagg/secagg_rig.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::HasSubstr;

constexpr SecAggStep kSteps[] = {SecAggStep::advertise, SecAggStep::share, SecAggStep::input, SecAggStep::consistency, SecAggStep::unmask};

/// Everybody is a neighbour of everybody: 6 clients, threshold 3 of 5, at least 4 survivors.
SecAggPlan complete() { return plan_for(6, 2); }
/// Each of 6 clients has one that is no neighbour: threshold 3 of 4, at least 5 survivors.
SecAggPlan sparse() { return plan_for(6, 1); }

/// Nothing more comes out of the client, whatever is asked.
void expect_silent(Rig& rig, std::size_t index) {
  EXPECT_EQ(rig.client(index).step(), SecAggStep::aborted);
  for (const SecAggStep step : kSteps) {
    EXPECT_THROW(rig.answer(step, index, rig.received(index)[step]), ProtocolError) << static_cast<int>(step);
  }
}

using Attack = std::function<SecAggBytes(Rig&, const SecAggBytes&)>;

/// Runs honestly up to `step`; there client 0 gets what the attack makes of its message. It must refuse with `reason`.
void expect_refusal(const SecAggPlan& plan, SecAggStep step, const std::string& reason, const Attack& attack) {
  Rig rig(6, plan);
  rig.run(static_cast<SecAggStep>(static_cast<int>(step) - 1));
  const SecAggBytes honest = rig.pending_for(0);
  ASSERT_FALSE(honest.empty());
  const SecAggBytes message = attack(rig, honest);
  EXPECT_NE(message, honest) << "no attack at all: " << reason;
  SecAggBytes leaked;
  EXPECT_THAT(refusal_of([&] { leaked = rig.answer(step, 0, message); }), HasSubstr(reason));
  EXPECT_TRUE(leaked.empty());
  EXPECT_THAT(rig.client(0).abort_reason(), HasSubstr("secure aggregation, round 5: "));
  EXPECT_THAT(rig.client(0).abort_reason(), HasSubstr(reason));
  rig.received(0)[step] = honest;
  expect_silent(rig, 0);
}

// Step 2: the roster.

std::vector<SecAggAdvert> adverts_of(Rig& rig) {
  std::vector<SecAggAdvert> adverts;
  for (std::size_t i = 0; i < 6; ++i) adverts.push_back(decode_advert(rig.round(), rig.sent(i)[SecAggStep::advertise]));
  return adverts;
}

/// The roster that client 0 would get if these were all adverts, in any order of ids.
SecAggBytes roster_for_0(const Rig& rig, const std::vector<SecAggAdvert>& adverts) {
  SecAggRoster message;
  for (const SecAggAdvert& advert : adverts) message.entries.push_back({advert.client, digest_of(advert)});
  const Roster roster(rig.round(), rig.plan(), message.entries);
  for (const std::uint32_t neighbour : roster.neighbours(*roster.place(id_of(0)))) message.adverts.push_back(adverts[neighbour]);
  return encode_roster(rig.round(), message);
}

void expect_adverts_refused(const std::string& reason, const std::function<void(Rig&, std::vector<SecAggAdvert>&)>& change) {
  expect_refusal(complete(), SecAggStep::share, reason, [&](Rig& rig, const SecAggBytes&) {
    std::vector<SecAggAdvert> adverts = adverts_of(rig);
    change(rig, adverts);
    return roster_for_0(rig, adverts);
  });
}

void sign_as(const Rig& rig, std::size_t index, SecAggAdvert& advert) {
  advert.signature = identity_of(index).sign(kAdvertDomain, signed_bytes(advert, digest_of(rig.round(), rig.plan())));
}

constexpr const char* kNotSigned = "are not signed by its enrolled identity for this session, round, model and plan";

TEST(HostileServer, CannotPutItsOwnKeysBetweenClients) {
  const PublicKey forged = AgreementKeys(SecretKey(fixed_key(9, 1))).public_key();
  expect_adverts_refused(kNotSigned, [&](Rig&, auto& adverts) { adverts[3].sealing_key = forged; });
  expect_adverts_refused(kNotSigned, [&](Rig&, auto& adverts) { adverts[3].mask_key = forged; });
  // Signed, but by another enrolled client, or by nobody enrolled.
  expect_adverts_refused("the keys of client 1021 are not signed", [&](Rig& rig, auto& adverts) {
    adverts[3].mask_key = forged;
    sign_as(rig, 2, adverts[3]);
  });
  expect_adverts_refused(kNotSigned, [&](Rig& rig, auto& adverts) {
    adverts[3].mask_key = forged;
    sign_as(rig, 77, adverts[3]);
  });
}

TEST(HostileServer, CannotSwapKeys) {
  expect_adverts_refused(kNotSigned, [](Rig&, auto& adverts) { std::swap(adverts[3].sealing_key, adverts[3].mask_key); });
  expect_adverts_refused(kNotSigned, [](Rig&, auto& adverts) {
    std::swap(adverts[2], adverts[3]);
    std::swap(adverts[2].client, adverts[3].client);
  });
}

TEST(HostileServer, CannotReplayAdverts) {
  const auto replay_from = [](const SecAggRound& round, const SecAggPlan& plan) {
    expect_adverts_refused(kNotSigned, [&](Rig&, auto& adverts) {
      Rig other(6, plan, round);
      adverts[3] = decode_advert(round, other.client(3).advertise());
    });
  };
  SecAggRound round = some_round();
  round.round = 4;
  replay_from(round, complete());
  round = some_round();
  round.session[31] ^= std::byte{1};
  replay_from(round, complete());
}

TEST(HostileServer, CannotGiveClientsDifferentModels) {
  SecAggRound round = some_round();
  round.model_hash[0] ^= std::byte{1};
  expect_adverts_refused("it was asked something else", [&](Rig&, auto& adverts) {
    Rig other(6, complete(), round);
    adverts[3] = decode_advert(round, other.client(3).advertise());
  });
}

TEST(HostileServer, CannotGiveClientsDifferentPlans) {
  SecAggPlan weaker = complete();
  weaker.server = ServerModel::curious;  // threshold 2 instead of 3
  expect_adverts_refused("it was asked something else", [&](Rig& rig, auto& adverts) {
    Rig other(6, weaker);
    adverts[3] = decode_advert(rig.round(), other.client(3).advertise());
  });
}

TEST(HostileServer, CannotListStrangersOrItself) {
  const auto list = [](ClientId id) {
    expect_adverts_refused("the roster lists client " + std::to_string(id) + ", who is not enrolled", [&](Rig&, auto& adverts) {
      SecAggAdvert stranger = adverts[5];
      stranger.client = id;
      adverts.insert(id < id_of(0) ? adverts.begin() : adverts.end(), stranger);
    });
  };
  list(0);
  list(5000);
}

/// Changes the list alone, and leaves the adverts as they are.
void expect_entries_refused(const std::string& reason, const std::function<void(std::vector<SecAggRosterEntry>&)>& change) {
  expect_refusal(complete(), SecAggStep::share, reason, [&](Rig& rig, const SecAggBytes& honest) {
    SecAggRoster roster = decode_roster(rig.round(), honest);
    change(roster.entries);
    return encode_roster(rig.round(), roster);
  });
}

TEST(HostileServer, CannotListAClientTwiceOrLeaveItOut) {
  expect_entries_refused("lists client 1014 twice", [](auto& entries) { entries.insert(entries.begin() + 2, entries[2]); });
  expect_entries_refused("lists client 1000 twice", [](auto& entries) { entries.insert(entries.begin(), entries[0]); });
  expect_entries_refused("twice or out of order", [](auto& entries) { std::swap(entries[1], entries[2]); });
  expect_entries_refused("leaves this client out", [](auto& entries) { entries.erase(entries.begin()); });
  expect_entries_refused("other keys for this client than it sent", [](auto& entries) { entries[0].advert = entries[1].advert; });
  expect_entries_refused("the keys of client 1007 are not those in the roster", [](auto& entries) { entries[1].advert[0] ^= std::byte{1}; });
}

TEST(HostileServer, CannotMakeTheCohortOrTheNeighbourhoodSmall) {
  expect_entries_refused("the roster has 2 clients; a round needs 3", [](auto& entries) { entries.resize(2); });
  expect_entries_refused("no graph of 3 clients is safe", [](auto& entries) { entries.resize(3); });
  const auto change_adverts = [](const std::string& reason, const SecAggPlan& plan, auto change) {
    expect_refusal(plan, SecAggStep::share, reason, [&](Rig& rig, const SecAggBytes& honest) {
      SecAggRoster roster = decode_roster(rig.round(), honest);
      change(rig, roster.adverts);
      return encode_roster(rig.round(), roster);
    });
  };
  change_adverts("sent the keys of 4 clients; among 6 clients this one has 5 neighbours", complete(), [](Rig&, auto& adverts) { adverts.pop_back(); });
  change_adverts("sent the keys of 5 clients; among 6 clients this one has 4 neighbours", sparse(), [](Rig& rig, auto& adverts) {
    adverts = adverts_of(rig);
    adverts.erase(adverts.begin());
  });
  // A friend of the server's in place of a neighbour.
  change_adverts("is the neighbour", sparse(), [](Rig& rig, auto& adverts) {
    for (const SecAggAdvert& advert : adverts_of(rig)) {
      const bool listed = std::ranges::any_of(adverts, [&](const SecAggAdvert& other) { return other.client == advert.client; });
      if (!listed && advert.client != id_of(0)) adverts[0] = advert;
    }
    std::ranges::sort(adverts, {}, &SecAggAdvert::client);
  });
}

TEST(HostileServer, CannotHaveAFriendMirrorOrWeakenKeys) {
  expect_adverts_refused("client 1021 has a key of this client", [](Rig& rig, auto& adverts) {
    adverts[3].mask_key = adverts[0].mask_key;
    sign_as(rig, 3, adverts[3]);
  });
  // A point of low order (RFC 7748 section 6.1): with 0 as public key every agreement ends in 0.
  expect_adverts_refused("low order", [](Rig& rig, auto& adverts) {
    adverts[3].sealing_key = PublicKey{};
    sign_as(rig, 3, adverts[3]);
  });
}

TEST(HostileServer, CannotPassOffMessagesOfAnotherRoundOrStep) {
  for (const SecAggStep step : {SecAggStep::share, SecAggStep::input, SecAggStep::consistency, SecAggStep::unmask}) {
    const auto other = [step](const SecAggRound& round) {
      return [step, round](Rig&, const SecAggBytes&) {
        Rig rig(6, complete(), round);
        rig.run(static_cast<SecAggStep>(static_cast<int>(step) - 1));
        return rig.pending_for(0);
      };
    };
    SecAggRound round = some_round();
    round.round = 4;
    expect_refusal(complete(), step, "is of round 4; this is round 5", other(round));
    round = some_round();
    round.session[0] ^= std::byte{1};
    expect_refusal(complete(), step, "is of another session", other(round));
    expect_refusal(complete(), step, "is due, but this is", [](Rig& rig, const SecAggBytes&) { return rig.sent(0)[SecAggStep::advertise]; });
  }
}

// Step 3: the inbox.

void expect_inbox_refused(const SecAggPlan& plan, const std::string& reason, const std::function<void(Rig&, SecAggInbox&)>& change) {
  expect_refusal(plan, SecAggStep::input, reason, [&](Rig& rig, const SecAggBytes& honest) {
    SecAggInbox inbox = decode_inbox(rig.round(), 6, honest);
    change(rig, inbox);
    return encode_inbox(rig.round(), inbox);
  });
}

TEST(HostileServer, CannotHideSharers) {
  expect_inbox_refused(complete(), "this client did not share", [](Rig&, SecAggInbox& inbox) { inbox.sharers[0] = false; });
  expect_inbox_refused(complete(), "3 of 6 clients shared; 4 are needed", [](Rig&, SecAggInbox& inbox) {
    inbox.sharers[1] = inbox.sharers[2] = inbox.sharers[3] = false;
    inbox.boxes.erase(inbox.boxes.begin(), inbox.boxes.begin() + 3);
  });
  expect_inbox_refused(complete(), "the shares of client 1007 are missing", [](Rig&, SecAggInbox& inbox) { inbox.boxes.erase(inbox.boxes.begin()); });
  // One more than shared, by somebody unknown.
  expect_inbox_refused(complete(), "shares came from client 9000, who is no neighbour that shared", [](Rig&, SecAggInbox& inbox) {
    inbox.boxes.push_back({9000, inbox.boxes[4].sealed});
  });
  expect_inbox_refused(complete(), "lists client 1014 twice", [](Rig&, SecAggInbox& inbox) { inbox.boxes.insert(inbox.boxes.begin() + 1, inbox.boxes[1]); });
}

TEST(HostileServer, CannotAlterOrMisdirectShares) {
  expect_inbox_refused(complete(), "the shares of client 1014 do not open", [](Rig&, SecAggInbox& inbox) { inbox.boxes[1].sealed[40] ^= std::byte{1}; });
  expect_inbox_refused(complete(), "do not open", [](Rig&, SecAggInbox& inbox) { std::swap(inbox.boxes[1].sealed, inbox.boxes[2].sealed); });
  // What client 2 sealed for client 3; and what client 0 itself sealed for client 2.
  expect_inbox_refused(complete(), "do not open", [](Rig& rig, SecAggInbox& inbox) {
    inbox.boxes[1].sealed = decode_shares(rig.round(), rig.sent(2)[SecAggStep::share]).boxes[2].sealed;
  });
  expect_inbox_refused(complete(), "do not open", [](Rig& rig, SecAggInbox& inbox) {
    inbox.boxes[1].sealed = decode_shares(rig.round(), rig.sent(0)[SecAggStep::share]).boxes[1].sealed;
  });
  // The same client's, of another round with the same keys' owner.
  expect_inbox_refused(complete(), "do not open", [](Rig&, SecAggInbox& inbox) {
    SecAggRound round = some_round();
    round.round = 4;
    Rig other(6, complete(), round);
    other.run(SecAggStep::share);
    inbox.boxes[1] = decode_inbox(round, 6, other.pending_for(0)).boxes[1];
  });
}

// Two rosters, 1 … 5 and all: keys are bound to the roster, so whoever saw another one shared nothing with this client.
TEST(HostileServer, CannotSplitTheCohort) {
  expect_inbox_refused(complete(), "it saw another roster", [](Rig& rig, SecAggInbox& inbox) {
    Rig other(6, complete());
    other.run(SecAggStep::advertise);
    std::vector<SecAggAdvert> adverts = adverts_of(rig);
    adverts.erase(adverts.begin() + 4);
    SecAggRoster message;
    for (const SecAggAdvert& advert : adverts) message.entries.push_back({advert.client, digest_of(advert)});
    const Roster roster(rig.round(), rig.plan(), message.entries);
    for (const std::uint32_t neighbour : roster.neighbours(1)) message.adverts.push_back(adverts[neighbour]);
    const SecAggShares shares = decode_shares(rig.round(), other.client(1).share(encode_roster(rig.round(), message)));
    inbox.boxes[0].sealed = shares.boxes[0].sealed;
  });
}

// Step 4: the survivors.

void expect_survivors_refused(const std::string& reason, const std::function<void(SecAggSet&)>& change, const History& history = {}) {
  Rig rig(6, complete());
  if (!history.empty()) rig.drop(history);
  rig.run(SecAggStep::input);
  SecAggSet survivors = decode_survivors(rig.round(), 6, rig.pending_for(0));
  change(survivors);
  EXPECT_THAT(refusal_of([&] { rig.client(0).confirm(encode_survivors(rig.round(), survivors)); }), HasSubstr(reason));
  expect_silent(rig, 0);
}

TEST(HostileServer, CannotInventOrHideSurvivors) {
  expect_survivors_refused("lists this client as dropped out, though it sent its vector", [](SecAggSet& set) { set[0] = false; });
  expect_survivors_refused("3 of 6 clients survived; 4 are needed", [](SecAggSet& set) { set[1] = set[2] = set[3] = false; });
  History history(6, SecAggStep::done);
  history[3] = SecAggStep::share;
  expect_survivors_refused("lists client 1021 as a survivor, who did not share", [](SecAggSet& set) { set[3] = true; }, history);
}

/// 30 clients of which 9 may drop out, in a graph of lower degree.
SecAggPlan large() {
  SecAggPlan plan = plan_for(30, 9, ServerModel::curious);
  plan.adversary_rate = 0.04;
  return plan;
}

/// Just so many of client 0's neighbours that one less than the threshold is left.
std::vector<std::uint32_t> too_many_neighbours(Rig& rig) {
  const Roster& roster = *rig.server().roster();
  std::vector<std::uint32_t> neighbours = roster.neighbours(0);
  EXPECT_LT(neighbours.size(), 29U);
  neighbours.resize(neighbours.size() - roster.threshold() + 1);
  EXPECT_LE(neighbours.size(), 9U) << "the plan allows for them in all";
  return neighbours;
}

// As many drop-outs as planned, but all of them around one client, who would be left alone with the server's friends.
TEST(HostileServer, CannotTakeAClientsNeighboursAway) {
  {
    Rig rig(30, large());
    rig.run(SecAggStep::share);
    SecAggInbox inbox = decode_inbox(rig.round(), 30, rig.pending_for(0));
    for (const std::uint32_t place : too_many_neighbours(rig)) {
      inbox.sharers[place] = false;
      std::erase_if(inbox.boxes, [&](const SealedShares& box) { return box.peer == id_of(place); });
    }
    EXPECT_THAT(refusal_of([&] { rig.answer(SecAggStep::input, 0, encode_inbox(rig.round(), inbox)); }),
                HasSubstr("of this client's neighbours shared; "));
    expect_silent(rig, 0);
  }
  Rig rig(30, large());
  rig.run(SecAggStep::input);
  SecAggSet survivors(30, true);
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
  expect_confirmations_refused(complete(), "only 2 neighbours confirmed the survivors; 3 are needed", [](Rig&, auto& signatures) { signatures.resize(2); });
  expect_confirmations_refused(complete(), "only 0 neighbours", [](Rig&, auto& signatures) { signatures.clear(); });
}

TEST(HostileServer, CannotCountSignaturesThatAreNone) {
  expect_confirmations_refused(complete(), "client 1007 did not sign the survivors", [](Rig&, auto& signatures) { signatures[0].signature[5] ^= std::byte{1}; });
  expect_confirmations_refused(complete(), "did not sign the survivors", [](Rig&, auto& signatures) { signatures[0].signature = signatures[1].signature; });
  expect_confirmations_refused(complete(), "twice or out of order", [](Rig&, auto& signatures) { signatures.resize(2); signatures.push_back(signatures[1]); });
  expect_confirmations_refused(complete(), "confirmed by client 1000, who is no surviving neighbour", [](Rig& rig, auto& signatures) {
    signatures.insert(signatures.begin(), {id_of(0), decode_confirmation(rig.round(), rig.sent(0)[SecAggStep::consistency])});
  });
  expect_confirmations_refused(complete(), "confirmed by client 9, who is no surviving neighbour", [](Rig&, auto& signatures) {
    signatures.insert(signatures.begin(), {9, signatures[0].signature});
  });
  // In the sparse graph one client is no neighbour of client 0: its signature is good and counts for nothing.
  expect_confirmations_refused(sparse(), "who is no surviving neighbour", [](Rig& rig, auto& signatures) {
    for (std::size_t i = 1; i < 6; ++i) {
      const bool listed = std::ranges::any_of(signatures, [&](const SecAggSignature& each) { return each.client == id_of(i); });
      if (!listed) signatures.push_back({id_of(i), decode_confirmation(rig.round(), rig.sent(i)[SecAggStep::consistency])});
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

/// How many shares of each kind have left the honest clients, by owner.
std::map<ClientId, std::array<std::uint32_t, 3>> leaked_shares(Rig& rig, std::size_t clients) {
  std::map<ClientId, std::array<std::uint32_t, 3>> leaked;
  for (std::size_t i = 0; i < clients; ++i) {
    const auto sent = rig.sent(i).find(SecAggStep::unmask);
    if (sent == rig.sent(i).end()) continue;
    for (const RevealedShare& share : decode_reveal(rig.round(), sent->second)) leaked[share.owner][static_cast<std::size_t>(share.kind)]++;
  }
  return leaked;
}

// Every way to tell some of 6 clients that client `victim` lives and the others that it left, with the signatures that were given.
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
        signatures[i] = decode_confirmation(rig.round(), rig.client(i).confirm(encode_survivors(rig.round(), sets[group(i)])));
      }
      for (std::size_t i = 0; i < 6; ++i) {
        std::vector<SecAggSignature> matching;
        for (std::size_t j = 0; j < 6; ++j) {
          if (j != i && group(j) == group(i) && sets[group(i)][j]) matching.push_back({id_of(j), signatures[j]});
        }
        const std::string refusal =
            refusal_of([&] { rig.sent(i)[SecAggStep::unmask] = rig.client(i).unmask(encode_confirmations(rig.round(), matching)); });
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
    const SecAggBytes signed_set = rig.client(i).confirm(encode_survivors(rig.round(), i < 3 ? everybody : i == 5 ? everybody : without_5));
    if (i != 0) signatures.push_back({id_of(i), decode_confirmation(rig.round(), signed_set)});
  }
  EXPECT_THAT(refusal_of([&] { rig.client(0).unmask(encode_confirmations(rig.round(), signatures)); }),
              HasSubstr("client 1021 did not sign the survivors that this client was told"));
  expect_silent(rig, 0);
}

// Clients 0 and 1 are each told that the other did not share, so no mask is between them. They would sign other sharers than the
// rest, and nobody unmasks with them.
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
  EXPECT_THAT(refusal_of([&] { rig.client(1).confirm(rig.pending_for(1)); }), HasSubstr("client 1000 as a survivor, who did not share"));
  SecAggSet without_1(6, true);
  without_1[1] = false;
  rig.client(0).confirm(encode_survivors(rig.round(), without_1));
  std::vector<SecAggSignature> list;
  for (std::size_t i = 2; i < 6; ++i) list.push_back({id_of(i), signatures[i - 2]});
  EXPECT_THAT(refusal_of([&] { rig.client(0).unmask(encode_confirmations(rig.round(), list)); }), HasSubstr("did not sign the survivors"));
  expect_silent(rig, 0);
  expect_silent(rig, 1);
}

// After its one answer a client gives nothing, whichever set it is asked about: not the other share, not the same again.
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

// The client as a state machine: in every state every call but one is refused, and a refusal is final. So all sequences of calls
// reveal at most once, after one confirmation, after one vector.
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
      EXPECT_THAT(refusal_of([&] { rig.answer(kSteps[call], 0, message); }), HasSubstr(" came where ")) << done << " then " << call;
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
