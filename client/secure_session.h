#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "fl_core/base/buffer.h"
#include "fl_core/wire/message.h"
#include "privacy/noise/noise_keys.h"
#include "privacy/secagg/client.h"
#include "privacy/secagg/envelope.h"
#include "privacy/secagg/secure_vector.h"

namespace fl {

/// What a client brings into secure aggregation.
struct SecureSessionParts {
  ClientId client = 0;
  std::string run;                             ///< identity of the run
  SecureVector vector;
  SecAggPlan plan;
  SecAggPolicy policy;                         ///< the owner's
  /// Asked at the start of each round: certificates are renewed, and lists of revoked ones grow. May throw ConfigError.
  std::function<std::shared_ptr<const Enrolment>()> enrol;
  NoiseKeys& keys;                             ///< borrowed
  std::uint64_t seed = 0;                      ///< of the experiment: keys random rounding
  /// Called with the round before its masked vector may leave; on disk when it returns. Empty where nothing outlives the process.
  std::function<void(std::uint32_t)> before_masking;
};

/// A client's part in secure aggregation, round after round: keeps the finished update and the state machine between messages, and turns
/// messages of rounds into those of the protocol and back. A new train task begins afresh. One thread at a time.
class SecureSession {
 public:
  explicit SecureSession(SecureSessionParts parts);

  /// Training is done: keeps the update (float[N]) in memory. Returns the answer to `task`, or a failure that says why.
  Message begin(const Task& task, std::span<const float> update, const SecureTotals& totals);
  /// Answers a secure_step, or says why not; then the round is over for this client. Throws ProtocolError for a message whose header no
  /// correct server sends.
  Message answer(const Message& step);
  /// Whether a vector was masked in this or a later round: then this client takes no part in it again, since two sums over different
  /// survivors show their difference.
  bool masked(std::uint32_t round) const { return round <= newest_masked_; }
  /// The answer to a task of such a round.
  Message refuse(const Task& task) const;
  /// What an earlier process masked.
  void set_masked(std::uint32_t round) { newest_masked_ = round; }

 private:
  Message take_step(const SecureHeader& header, SecAggView body);
  Message reply(const SecureHeader& header, SecAggBytes body) const;
  SecAggBytes mask(SecAggView inbox);
  void end();

  SecureSessionParts parts_;
  SessionId session_;
  std::shared_ptr<const Enrolment> enrolment_;  ///< in this round
  KnownPeers peers_;
  std::optional<SecAggClient> protocol_;
  SecureHeader header_;            ///< of the round
  AlignedArray<float> update_;     ///< until it is masked
  SecureTotals totals_;
  std::uint32_t newest_masked_ = 0;
};

}  // namespace fl
