#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "privacy/secagg/client.h"

namespace fl {

/// What became of a message that was no error.
enum class SecAggReceipt : std::uint8_t {
  counted,
  late,      ///< its step was closed before: discarded
  repeated,  ///< the client had answered this step: discarded
  stranger,  ///< from nobody who is still in the round: discarded
};

/// A message to one client.
struct SecAggMail {
  ClientId client = 0;
  SecAggBytes bytes;
};

/// What a round gives.
struct SecAggSum {
  std::vector<std::uint64_t> values;  ///< Σ over survivors, mod 2^bits
  std::vector<ClientId> survivors;    ///< ascending
};

/// Calls its second argument once with each number below `count`, in any order and on any threads, and returns when all
/// calls have returned. They throw nothing.
using SecAggParallel = std::function<void(std::size_t count, const std::function<void(std::size_t)>& work)>;

/// The server's half of one round. The host hands in what clients sent, with the id that the connection proved, and
/// closes each step when everybody answered (waiting() is empty) or the time is up; a close returns the next step's
/// messages. If the round cannot end well it is aborted instead: a close returns nothing and abort_reason() says why;
/// nothing was unmasked. add_*() throw ProtocolError for a message that is malformed or too early; that client's
/// message is not counted, the round goes on. Memory: one vector, and 100 bytes for each pair of neighbours. One thread
/// at a time.
class SecAggServer {
 public:
  /// `directory` outlives the object. Throws ConfigError for a plan that makes no sense.
  SecAggServer(const SecAggRound& round, const SecAggPlan& plan, const PeerDirectory& directory);

  /// Lets finish() use several cores; without, or with an empty function, it uses the calling thread alone. The result
  /// is the same, bit for bit, and so is the reason of an abort.
  void set_parallel(SecAggParallel parallel) { parallel_ = std::move(parallel); }

  /// Step 1. Forged, weak and copied keys are refused here, so that one client cannot make the others abort.
  SecAggReceipt add_advert(ClientId from, SecAggView message);
  std::vector<SecAggMail> close_adverts();
  /// Step 2.
  SecAggReceipt add_shares(ClientId from, SecAggView message);
  std::vector<SecAggMail> close_shares();
  /// Step 3. Vectors are added as they come.
  SecAggReceipt add_input(ClientId from, SecAggView message);
  std::vector<SecAggMail> close_inputs();
  /// Step 4.
  SecAggReceipt add_confirmation(ClientId from, SecAggView message);
  std::vector<SecAggMail> close_confirmations();
  /// Step 5.
  SecAggReceipt add_reveal(ClientId from, SecAggView message);
  /// Rebuilds secrets, takes the masks off. Nothing if shares are missing or false beyond repair. May be called once.
  std::optional<SecAggSum> finish();

  /// Who was asked and has not answered this step, ascending. Empty in step 1, where whoever comes is welcome.
  std::vector<ClientId> waiting() const;
  SecAggStep step() const { return step_; }
  /// Empty while the round is not aborted.
  const std::string& abort_reason() const { return reason_; }
  /// Nothing before the adverts are closed.
  const SecAggCohort* roster() const { return roster_ ? &*roster_ : nullptr; }

 private:
  struct Member {
    SecAggAdvert advert;
    SecAggStep next = SecAggStep::share;  ///< the step it has to answer next
    std::vector<std::uint32_t> neighbours;
    SecAggDigest seed_commitment{};
    std::vector<SealedShares> boxes;  ///< to its neighbours, in their order
    Signature signature{};
    std::vector<RevealedShare> revealed;
  };

  /// Nothing if the message is for the step that is open and from somebody who is to answer it.
  std::optional<SecAggReceipt> screen(SecAggStep step, ClientId from, std::uint32_t& place) const;
  /// Who answered `step`.
  SecAggSet answered(SecAggStep step) const;
  bool open(SecAggStep step) const;
  void abort(const std::string& reason);
  /// Aborts unless `left` has enough clients and `threshold` neighbours of everybody whose secrets will be needed.
  bool enough(const SecAggSet& left, const char* did);
  bool is_needed(std::uint32_t place) const;
  /// Runs all items; throws what the first of them, by number, threw.
  void for_each(std::size_t count, const std::function<void(std::size_t)>& work) const;
  SecretKey rebuild(std::uint32_t owner, ShareKind kind) const;
  std::vector<ShamirShare> shares_of(std::uint32_t owner, ShareKind kind) const;
  bool is_right(std::uint32_t owner, ShareKind kind, const SecretKey& secret) const;
  /// A mask that is in the sum and has to come off.
  struct Removal {
    SecretKey key;
    bool subtract = false;
  };
  /// The masks that the secret of `owner`, rebuilt here, gives.
  std::vector<Removal> masks_of(std::uint32_t owner) const;
  void remove_masks();

  SecAggRound round_;
  SecAggPlan plan_;
  const PeerDirectory* directory_;
  SecAggParallel parallel_;
  SecAggStep step_ = SecAggStep::advertise;
  std::string reason_;
  std::map<ClientId, SecAggAdvert> adverts_;
  std::set<PublicKey> keys_;  ///< of all adverts
  std::optional<SecAggCohort> roster_;
  std::vector<Member> members_;  ///< by place
  SecAggSet sharers_;
  SecAggSet survivors_;
  std::vector<std::uint64_t> sum_;
};

}  // namespace fl
