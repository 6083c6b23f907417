#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fl_core/round/types.h"
#include "privacy/ledger/ledger.h"

namespace fl {

/// What the next round starts from. Round 0 is the initial model.
struct CommittedRound {
  std::uint32_t round = 0;
  std::uint32_t model_version = 0;
  std::string model_sha256;                 ///< the blob with the weights
  std::optional<std::string> state_sha256;  ///< the blob with the strategy's state, when it has one
  std::uint64_t server_steps = 0;           ///< Strategy::steps()
  Seconds virtual_seconds = 0;              ///< the transport's clock
  bool abandoned = false;                   ///< the round left the model as it was
  std::string privacy_state;                ///< ServerMechanism::state() after the round; empty for none. Kept of the newest round only
};

/// One client of a deployed run, as the registry knows it.
struct ClientRecord {
  ClientId id = 0;              ///< its number in the run: the order of first admission, or of the list in server.json
  std::string identity;         ///< the name in its certificate
  double first_seen = 0;        ///< seconds since 1970; 0 for a listed client that was never here
  double last_seen = 0;
  std::uint64_t sessions = 0;   ///< connections that were welcomed
  std::string profile;          ///< JSON: what it said of itself in its last hello (software, examples, threads, …)
};

/// What a client did in the run so far, from the committed rounds.
struct Participation {
  std::array<std::uint64_t, kOutcomes> outcomes{};  ///< rounds by outcome
  /// High-water mark: the newest round with an accepted update (0: none). One of this round or an earlier one cannot count again.
  std::uint32_t last_counted_round = 0;
};

/// The durable record of a run: which rounds are committed, what they did, and facts about the run. The engine's thread
/// alone calls it. Every change is on disk when its call returns, or has not happened, unless wait_for_disk(false) was said.
/// Errors: IoError where the system refuses (disk full, no permission), ConfigError where the record is damaged.
class Store {
 public:
  virtual ~Store() = default;

  /// Whether changes wait until they are on disk. Those that did not wait are there with the next that does; until then a power
  /// cut may take the newest of them. A process that dies takes nothing.
  virtual void wait_for_disk(bool wait) = 0;

  /// Facts about the run (experiment hash, data fingerprint, versions) by name.
  virtual std::optional<std::string> meta(const std::string& key) = 0;
  virtual void set_meta(const std::string& key, const std::string& value) = 0;

  /// The newest committed round; nothing before round 0.
  virtual std::optional<CommittedRound> last_round() = 0;
  /// The newest `count` committed rounds, newest first.
  virtual std::vector<CommittedRound> newest_rounds(std::size_t count) = 0;
  /// Commits a round, its report so far, and what became of each member of its cohort. REQUIRES: committed.round is one
  /// above last_round(), or 0 for the first; report.round == committed.round.
  virtual void commit_round(const CommittedRound& committed, const RoundReport& report) = 0;
  /// Takes out all rounds after this one. REQUIRES: it is committed, and the run has no privacy ledger.
  virtual void forget_rounds_after(std::uint32_t round) = 0;

  /// The privacy ledger, ascending.
  virtual std::vector<LedgerEntry> ledger() = 0;
  /// REQUIRES: next_entry() of what ledger() holds.
  virtual void append_to_ledger(const LedgerEntry& entry) = 0;
  /// The newest committed round's privacy_state.
  virtual std::string privacy_state() = 0;

  /// Replaces the report of a committed round by its final form (evaluation included).
  virtual void complete_round(const RoundReport& report) = 0;
  /// The report of the newest round when a crash came between commit_round and complete_round.
  virtual std::optional<RoundReport> incomplete_report() = 0;
  /// The final reports, ascending.
  virtual std::vector<RoundReport> reports() = 0;
  /// The model's SHA-256 after each committed round, ascending from round 0.
  virtual std::vector<std::string> model_hashes() = 0;

  /// The registry, by id ascending.
  virtual std::vector<ClientRecord> clients() = 0;
  /// Inserts or replaces these records in one transaction. REQUIRES: an id keeps its identity.
  virtual void save_clients(const std::vector<ClientRecord>& records) = 0;
  /// By client id; clients that were never in a cohort are not in it.
  virtual std::map<ClientId, Participation> participation() = 0;
};

enum class JournalMode : std::uint8_t {
  create,    ///< a new file
  existing,  ///< a file that create made
  recover,   ///< either: a run that died before its journal was made begins it now
  read,      ///< an existing file, also while its run goes on. REQUIRES: nothing that changes the Store is called
};

/// A Store in one SQLite file (write-ahead log, synchronous=FULL). A file of an older Tributary is converted, but not for
/// `read`. Refuses an existing file that is no journal, is damaged, or was written by a newer Tributary.
std::unique_ptr<Store> open_journal(const std::filesystem::path& path, JournalMode mode);

}  // namespace fl
