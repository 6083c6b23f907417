// A server that lies about who takes part and what they shared: the honest client aborts with the reason, and nothing
// leaves it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/privacy/secagg/hostile_server.h"

namespace fl {
namespace {

using namespace secagg_test;
using ::testing::HasSubstr;

/// The roster that client 0 would get if these were all adverts, in any order of ids.
SecAggBytes roster_for_0(const Rig& rig, const std::vector<SecAggAdvert>& adverts) {
  SecAggRoster message;
  for (const SecAggAdvert& advert : adverts) message.entries.push_back({advert.client, digest_of(advert)});
  const SecAggCohort roster(rig.round(), rig.plan(), message.entries);
  for (const std::uint32_t neighbour : roster.neighbours(*roster.place(id_of(0))))
    message.adverts.push_back(adverts[neighbour]);
  return encode_roster(rig.round(), message);
}

void expect_adverts_refused(const std::string& reason,
                            const std::function<void(Rig&, std::vector<SecAggAdvert>&)>& change) {
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
  expect_adverts_refused(kNotSigned,
                         [](Rig&, auto& adverts) { std::swap(adverts[3].sealing_key, adverts[3].mask_key); });
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
    expect_adverts_refused("the roster lists client " + std::to_string(id) + ", who is not enrolled",
                           [&](Rig&, auto& adverts) {
                             SecAggAdvert stranger = adverts[5];
                             stranger.client = id;
                             adverts.insert(id < id_of(0) ? adverts.begin() : adverts.end(), stranger);
                           });
  };
  list(0);
  list(5000);
}

/// Changes the list alone, and leaves the adverts as they are.
void expect_entries_refused(const std::string& reason,
                            const std::function<void(std::vector<SecAggRosterEntry>&)>& change) {
  expect_refusal(complete(), SecAggStep::share, reason, [&](Rig& rig, const SecAggBytes& honest) {
    SecAggRoster roster = decode_roster(rig.round(), honest);
    change(roster.entries);
    return encode_roster(rig.round(), roster);
  });
}

TEST(HostileServer, CannotListAClientTwiceOrLeaveItOut) {
  expect_entries_refused("lists client 1014 twice",
                         [](auto& entries) { entries.insert(entries.begin() + 2, entries[2]); });
  expect_entries_refused("lists client 1000 twice", [](auto& entries) { entries.insert(entries.begin(), entries[0]); });
  expect_entries_refused("twice or out of order", [](auto& entries) { std::swap(entries[1], entries[2]); });
  expect_entries_refused("leaves this client out", [](auto& entries) { entries.erase(entries.begin()); });
  expect_entries_refused("other keys for this client than it sent",
                         [](auto& entries) { entries[0].advert = entries[1].advert; });
  expect_entries_refused("the keys of client 1007 are not those in the roster",
                         [](auto& entries) { entries[1].advert[0] ^= std::byte{1}; });
}

TEST(HostileServer, CannotMakeTheCohortOrTheNeighbourhoodSmall) {
  expect_entries_refused("the roster has 2 clients; a round needs 3", [](auto& entries) { entries.resize(2); });
  expect_entries_refused("neighbour", [](auto& entries) { entries.resize(3); });
  const auto change_adverts = [](const std::string& reason, const SecAggPlan& plan, auto change) {
    expect_refusal(plan, SecAggStep::share, reason, [&](Rig& rig, const SecAggBytes& honest) {
      SecAggRoster roster = decode_roster(rig.round(), honest);
      change(rig, roster.adverts);
      return encode_roster(rig.round(), roster);
    });
  };
  change_adverts("sent the keys of 4 clients; among 6 clients this one has 5 neighbours", complete(),
                 [](Rig&, auto& adverts) { adverts.pop_back(); });
  change_adverts("sent the keys of 5 clients; among 6 clients this one has 4 neighbours", sparse(),
                 [](Rig& rig, auto& adverts) {
                   adverts = adverts_of(rig);
                   adverts.erase(adverts.begin());
                 });
  // A friend of the server's in place of a neighbour.
  change_adverts("is the neighbour", sparse(), [](Rig& rig, auto& adverts) {
    for (const SecAggAdvert& advert : adverts_of(rig)) {
      const bool listed =
          std::ranges::any_of(adverts, [&](const SecAggAdvert& other) { return other.client == advert.client; });
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
    expect_refusal(complete(), step, "is due, but this is",
                   [](Rig& rig, const SecAggBytes&) { return rig.sent(0)[SecAggStep::advertise]; });
  }
}

// Step 3: the inbox.

void expect_inbox_refused(const SecAggPlan& plan, const std::string& reason,
                          const std::function<void(Rig&, SecAggInbox&)>& change) {
  expect_refusal(plan, SecAggStep::input, reason, [&](Rig& rig, const SecAggBytes& honest) {
    SecAggInbox inbox = decode_inbox(rig.round(), 6, honest);
    change(rig, inbox);
    return encode_inbox(rig.round(), inbox);
  });
}

TEST(HostileServer, CannotHideSharers) {
  expect_inbox_refused(complete(), "this client did not share",
                       [](Rig&, SecAggInbox& inbox) { inbox.sharers[0] = false; });
  expect_inbox_refused(complete(), "3 of 6 clients shared; 4 are needed", [](Rig&, SecAggInbox& inbox) {
    inbox.sharers[1] = inbox.sharers[2] = inbox.sharers[3] = false;
    inbox.boxes.erase(inbox.boxes.begin(), inbox.boxes.begin() + 3);
  });
  expect_inbox_refused(complete(), "the shares of client 1007 are missing",
                       [](Rig&, SecAggInbox& inbox) { inbox.boxes.erase(inbox.boxes.begin()); });
  // One more than shared, by somebody unknown.
  expect_inbox_refused(complete(), "shares came from client 9000, who is no neighbour that shared",
                       [](Rig&, SecAggInbox& inbox) {
                         inbox.boxes.push_back({9000, inbox.boxes[4].sealed});
                       });
  expect_inbox_refused(complete(), "lists client 1014 twice",
                       [](Rig&, SecAggInbox& inbox) { inbox.boxes.insert(inbox.boxes.begin() + 1, inbox.boxes[1]); });
}

TEST(HostileServer, CannotAlterOrMisdirectShares) {
  expect_inbox_refused(complete(), "the shares of client 1014 do not open",
                       [](Rig&, SecAggInbox& inbox) { inbox.boxes[1].sealed[40] ^= std::byte{1}; });
  expect_inbox_refused(complete(), "do not open",
                       [](Rig&, SecAggInbox& inbox) { std::swap(inbox.boxes[1].sealed, inbox.boxes[2].sealed); });
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
    const SecAggCohort roster(rig.round(), rig.plan(), message.entries);
    for (const std::uint32_t neighbour : roster.neighbours(1)) message.adverts.push_back(adverts[neighbour]);
    const SecAggShares shares = decode_shares(rig.round(), other.client(1).share(encode_roster(rig.round(), message)));
    inbox.boxes[0].sealed = shares.boxes[0].sealed;
  });
}

}  // namespace
}  // namespace fl
