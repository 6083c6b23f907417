#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/base/error.h"
#include "privacy/noise/random_bits.h"
#include "privacy/secagg/peer_directory.h"
#include "privacy/secagg/roster.h"

namespace fl {

/// What a half of the protocol waits for.
enum class SecAggStep : std::uint8_t { advertise, share, input, consistency, unmask, done, aborted };

/// One client's part in one round. The host calls the five steps in order, each with the server's message, and sends
/// what it returns; README.md says what each checks. A message that is out of order, malformed or dishonest throws
/// ProtocolError with the reason, in words for the client's owner; from then on (as after any other error) the object
/// is aborted: secrets are wiped, and every further call throws. Secrets live in memory only and never beyond the step
/// that needs them last. One thread at a time.
class SecAggClient {
 public:
  /// `identity` and `directory` outlive the object. `randomness` must never repeat, for another round or for this one
  /// (see NoisePurpose::secure_aggregation). Throws ConfigError for a plan that makes no sense, ProtocolError for one
  /// below the policy.
  SecAggClient(ClientId self, const SecAggRound& round, const SecAggPlan& plan, const SecAggPolicy& policy,
               const SigningKey& identity, const PeerDirectory& directory, const NoiseKey& randomness);
  SecAggClient(SecAggClient&&) noexcept = default;
  SecAggClient& operator=(SecAggClient&&) noexcept = default;

  /// Step 1: makes this round's keys. Returns the advert.
  SecAggBytes advertise();
  /// Step 2: takes the roster. Returns the sealed shares. Some 100 us a neighbour.
  SecAggBytes share(SecAggView roster);
  /// Step 3: takes the inbox and the vector: plan.length values, taken mod 2^bits. Returns the masked vector. Some 50
  /// us and `length` values of AES-CTR a neighbour; what is sent is uniform to whoever lacks the keys.
  SecAggBytes mask(SecAggView inbox, std::span<const std::uint64_t> input);
  /// Step 4: takes the survivors. Returns the signature that says so.
  SecAggBytes confirm(SecAggView survivors);
  /// Step 5: takes the neighbours' signatures. Returns one share of each neighbour that shared. Nothing follows it.
  SecAggBytes unmask(SecAggView confirmations);

  /// The host gives up: wipes the secrets; nothing more will be answered.
  void abandon(const std::string& reason);
  SecAggStep step() const { return step_; }
  /// Why the client aborted; empty while it did not.
  const std::string& abort_reason() const { return reason_; }

 private:
  struct Peer {
    std::uint32_t place = 0;
    ClientId client = 0;
    PublicKey identity{};
    PublicKey sealing_key{};
    PublicKey mask_key{};
    SecretBytes shares;  ///< of the peer's seed, then of its mask key; empty unless it shared
  };

  /// Runs a step that is due; aborts on every error.
  template <class Work>
  SecAggBytes run(SecAggStep due, Work work) {
    begin(due);
    try {
      SecAggBytes answer = work();
      step_ = static_cast<SecAggStep>(static_cast<std::uint8_t>(due) + 1);
      if (step_ == SecAggStep::done) wipe();
      return answer;
    } catch (const ProtocolError& error) {
      abandon(error.what());
      throw ProtocolError(reason_);
    } catch (const std::exception& error) {
      abandon(error.what());
      throw;
    }
  }
  void begin(SecAggStep due);
  void wipe();

  void check_own_entry();
  void take_adverts(const std::vector<SecAggAdvert>& adverts);
  void check_advert(const SecAggAdvert& advert, std::uint32_t place, const PublicKey& identity) const;
  SecAggShares seal_shares();
  void open_boxes(const SecAggInbox& inbox);
  void apply_own_masks(std::vector<std::uint64_t>& values) const;

  ClientId self_;
  SecAggRound round_;
  SecAggPlan plan_;
  const SigningKey* identity_;
  const PeerDirectory* directory_;
  SecAggStep step_ = SecAggStep::advertise;
  std::string reason_;

  std::optional<RandomBits> bits_;        ///< until shares are sealed
  std::optional<AgreementKeys> sealing_;  ///< until the inbox is open
  std::optional<AgreementKeys> mask_;     ///< until the vector is masked
  SecretKey seed_;                        ///< until the vector is masked
  SecAggDigest own_advert_{};
  std::optional<SecAggCohort> roster_;  ///< from step 2
  std::uint32_t place_ = 0;
  std::vector<Peer> peers_;  ///< neighbours, by place
  SecAggSet sharers_;        ///< from step 3
  SecAggSet survivors_;      ///< from step 4
};

/// 32 bytes from a stream.
SecretKey draw_secret(RandomBits& bits);

}  // namespace fl
