#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/config/experiment.h"
#include "fl_core/transport/transport.h"
#include "privacy/secagg/envelope.h"
#include "privacy/secagg/secure_vector.h"
#include "privacy/secagg/server.h"

namespace fl {

/// What a collector is made for.
struct SecureCollectorParts {
  SecureVector vector;
  SecAggPlan plan;
  std::string run;                                 ///< identity of the run
  std::shared_ptr<const CredentialJudge> judge;
  Seconds step_timeout = 60;                       ///< how long a step after training may take
};

/// What a round's survivors sent, summed.
struct SecureSum {
  std::vector<std::int64_t> values;  ///< as the vector's code decodes them
  std::uint64_t terms = 0;
  SecureTotalsSum totals;
};

/// The server's side of a round under secure aggregation: brings the protocol's messages to the transport and back. What clients answered
/// to the train task are adverts; finish() runs the other steps. The engine's thread alone calls it.
class SecureCollector {
 public:
  explicit SecureCollector(SecureCollectorParts parts);

  const SecureVector& vector() const { return parts_.vector; }
  /// A round begins; what was left of another is forgotten.
  void begin(const SecureHeader& header, std::span<const std::byte> weights);
  /// A client's answer to the train task. Throws ProtocolError for one that cannot take part.
  void add_advert(ClientId client, const Message& answer);
  /// Runs the steps with the clients that report.cohort has as accepted, and sets to what became of them: accepted are those that the sum
  /// holds. Nothing when the round cannot be completed: then nothing was unmasked, reason() says why, and those that answered are not_summed.
  std::optional<SecureSum> finish(Transport& transport, RoundReport& report);
  const std::string& reason() const { return reason_; }

 private:
  std::vector<SecAggMail> with_credentials(std::vector<SecAggMail> rosters) const;
  /// Sends a step's messages and takes the answers until nobody is left to wait for.
  void exchange(Transport& transport, RoundReport& report, std::uint32_t step, const std::vector<SecAggMail>& mails);
  void take(std::uint32_t step, ClientId client, SecAggView body);
  std::vector<SecAggMail> close(std::uint32_t step);
  void judge(const Arrival& arrival, std::uint32_t step, RoundReport& report);

  SecureCollectorParts parts_;
  SessionId session_;
  SecureHeader header_;
  KnownPeers peers_;
  std::vector<Credential> credentials_;
  std::optional<SecAggServer> server_;
  std::string reason_;
};

}  // namespace fl
