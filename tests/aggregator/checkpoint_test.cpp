#include "aggregator/engine/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "fl_core/base/sha256.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

namespace fs = std::filesystem;
using test::error_of;
using test::TemporaryFolder;
using testing::HasSubstr;
using testing::UnorderedElementsAre;

std::vector<std::byte> model_of(std::uint32_t version, std::size_t size = 3000) {
  std::vector<std::byte> bytes(size, static_cast<std::byte>(version));
  return bytes;
}
std::vector<std::byte> state_of(std::uint32_t version) { return model_of(version + 100, 2000); }

RoundReport report_of(std::uint32_t round) {
  RoundReport report;
  report.round = round;
  report.model_version = round;
  report.training_loss = 1.0 / (3 + round);
  for (ClientId client = 0; client < 20; ++client) report.cohort.push_back({client, Outcome::accepted});
  return report;
}

std::string commit(RunFolder& folder, std::uint32_t round) {
  CommittedRound committed;
  committed.round = round;
  committed.model_version = round;
  committed.server_steps = round;
  return folder.commit(committed, report_of(round), model_of(round), state_of(round));
}

void run_round(RunFolder& folder, std::uint32_t round) {
  commit(folder, round);
  folder.complete(report_of(round));
}

class RunFolderTest : public testing::Test {
 protected:
  fs::path path() const { return folder_ / "run"; }

  /// A run folder with rounds 0 … last, closed again.
  void fill(std::uint32_t last) const {
    RunFolder folder(path(), RunFolderMode::create);
    for (std::uint32_t round = 0; round <= last; ++round) run_round(folder, round);
  }

  /// What a user can rely on after a crash: some whole version, and everything that follows from it in place.
  std::uint32_t expect_intact() const {
    RunFolder folder(path(), RunFolderMode::resume);
    const auto last = folder.store().last_round();
    EXPECT_TRUE(last);
    if (!last) return 0;
    EXPECT_EQ(last->server_steps, last->round);
    EXPECT_EQ(folder.read_blob(last->model_sha256), model_of(last->round));
    EXPECT_EQ(folder.read_blob(last->state_sha256.value_or("")), state_of(last->round));
    EXPECT_EQ(read_file(path() / "model.safetensors", 1U << 20U), model_of(last->round));
    const auto reports = folder.store().reports();
    EXPECT_GE(reports.size(), last->round) << "a report of a round before the newest is lost";
    EXPECT_EQ(reports.size() == last->round, folder.store().incomplete_report().has_value());
    std::string lines;
    for (const RoundReport& report : reports) lines += to_json(report).dump() + "\n";
    EXPECT_EQ(read_text_file(path() / "metrics.jsonl", 1U << 20U), lines);
    EXPECT_LE(blobs().size(), 4U);
    return last->round;
  }

  std::vector<std::string> blobs() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path() / "blobs")) names.push_back(entry.path().filename().string());
    return names;
  }

  /// Runs `action` in a process of its own and gives its wait status.
  template <class Action>
  int in_child(Action action) const {
    const pid_t child = ::fork();
    if (child == 0) {
      int code = 99;
      try {
        action();
        code = 0;
      } catch (const IoError&) {
        code = 4;
      } catch (...) {
      }
      ::_exit(code);
    }
    int status = 0;
    EXPECT_EQ(::waitpid(child, &status, 0), child);
    return status;
  }

  TemporaryFolder folder_;
};

/// No write in this process may go beyond this many bytes of a file: what happens then is the signal's matter.
void limit_file_size(rlim_t bytes, sighandler_t on_excess) {
  ::signal(SIGXFSZ, on_excess);
  const rlimit no_core = {0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
  const rlimit limit = {bytes, bytes};
  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) ::_exit(98);
}

TEST_F(RunFolderTest, KeepsWhatWasCommitted) {
  fill(2);
  EXPECT_EQ(expect_intact(), 2U);
  EXPECT_EQ(expect_intact(), 2U) << "opening changes nothing";
}

TEST_F(RunFolderTest, NamesAModelByTheHashOfItsBytes) {
  RunFolder folder(path(), RunFolderMode::create);
  EXPECT_EQ(commit(folder, 0), sha256_hex(model_of(0)));
}

TEST_F(RunFolderTest, KeepsTheBlobsOfTwoRoundsOnly) {
  fill(3);
  EXPECT_THAT(blobs(), UnorderedElementsAre(sha256_hex(model_of(2)), sha256_hex(state_of(2)), sha256_hex(model_of(3)),
                                            sha256_hex(state_of(3))));
}

TEST_F(RunFolderTest, DoesNotWriteABlobTwice) {
  RunFolder folder(path(), RunFolderMode::create);
  commit(folder, 0);
  const fs::path blob = path() / "blobs" / sha256_hex(model_of(0));
  struct stat before {};
  struct stat after {};
  ASSERT_EQ(::stat(blob.c_str(), &before), 0);
  CommittedRound abandoned;
  abandoned.round = 1;
  abandoned.abandoned = true;
  folder.commit(abandoned, report_of(1), model_of(0), {});
  ASSERT_EQ(::stat(blob.c_str(), &after), 0);
  EXPECT_EQ(before.st_ino, after.st_ino);
  EXPECT_FALSE(folder.store().last_round()->state_sha256);
}

TEST_F(RunFolderTest, RewritesABlobThatWasCutShort) {
  RunFolder folder(path(), RunFolderMode::create);
  fs::create_directories(path() / "blobs");
  write_file_atomically(path() / "blobs" / sha256_hex(model_of(0)), std::string("short"));
  commit(folder, 0);
  EXPECT_EQ(folder.read_blob(sha256_hex(model_of(0))), model_of(0));
}

TEST_F(RunFolderTest, WritesALineOfMetricsForACompletedRound) {
  RunFolder folder(path(), RunFolderMode::create);
  commit(folder, 0);
  EXPECT_FALSE(fs::exists(path() / "metrics.jsonl"));
  RoundReport final_report = report_of(0);
  final_report.accuracy = 0.75;
  folder.complete(final_report);
  EXPECT_EQ(read_text_file(path() / "metrics.jsonl", 1U << 20U), to_json(final_report).dump() + "\n");
}

TEST_F(RunFolderTest, ReportsMetricsThatCannotBeWritten) {
  RunFolder folder(path(), RunFolderMode::create);
  commit(folder, 0);
  fs::create_symlink("/dev/full", path() / "metrics.jsonl");  // every write to it fails with ENOSPC (full(4))
  EXPECT_THROW(folder.complete(report_of(0)), IoError);
}

TEST_F(RunFolderTest, RewritesMetricsAndModelFromTheJournal) {
  fill(2);
  const std::string good = read_text_file(path() / "metrics.jsonl", 1U << 20U);
  std::ofstream(path() / "metrics.jsonl", std::ios::app) << "{\"round\": 3, \"cut";
  fs::remove(path() / "model.safetensors");
  write_file_atomically(path() / "blobs" / "left.partial", std::string("x"));
  EXPECT_EQ(expect_intact(), 2U);
  EXPECT_EQ(read_text_file(path() / "metrics.jsonl", 1U << 20U), good);
}

TEST_F(RunFolderTest, GoesOnAfterACrashBetweenCommitAndReport) {
  {
    RunFolder folder(path(), RunFolderMode::create);
    run_round(folder, 0);
    commit(folder, 1);
  }
  RunFolder folder(path(), RunFolderMode::resume);
  ASSERT_TRUE(folder.store().incomplete_report());
  folder.complete(*folder.store().incomplete_report());
  run_round(folder, 2);
  EXPECT_EQ(folder.store().reports().size(), 3U);
}

TEST_F(RunFolderTest, IsHeldByOneProcess) {
  const std::string in_use = path().string() + " is in use by process " + std::to_string(::getpid());
  RunFolder folder(path(), RunFolderMode::create);
  commit(folder, 0);
  for (const RunFolderMode mode : {RunFolderMode::create, RunFolderMode::resume}) {
    EXPECT_THAT(error_of([&] { RunFolder second(path(), mode); }), HasSubstr(in_use));
    EXPECT_THROW(RunFolder(path(), mode), ConfigError);
  }
}

TEST_F(RunFolderTest, IsFreeAgainWhenItsProcessDied) {
  fill(0);
  const int status = in_child([&] {
    RunFolder folder(path(), RunFolderMode::resume);
    ::kill(::getpid(), SIGKILL);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(expect_intact(), 0U);
}

TEST_F(RunFolderTest, RefusesToCreateWhereSomethingIs) {
  fill(0);
  EXPECT_THAT(error_of([&] { RunFolder(path(), RunFolderMode::create); }), HasSubstr("go on with 'fl resume " + path().string()));
  fs::create_directories(folder_ / "other");
  write_file_atomically(folder_ / "other" / "thesis.txt", std::string("x"));
  EXPECT_THAT(error_of([&] { RunFolder(folder_ / "other", RunFolderMode::create); }),
              HasSubstr("is not empty (it has 'thesis.txt'); choose another --output"));
  EXPECT_FALSE(fs::exists(folder_ / "other" / "lock")) << "nothing is left in a folder that is not ours";
}

TEST_F(RunFolderTest, RefusesToResumeWhatIsNoRun) {
  EXPECT_THAT(error_of([&] { RunFolder(folder_ / "absent", RunFolderMode::resume); }), HasSubstr("holds no run"));
  EXPECT_FALSE(fs::exists(folder_ / "absent"));
}

TEST_F(RunFolderTest, ResumesARunThatDiedBeforeItsFirstModel) {
  { RunFolder folder(path(), RunFolderMode::create, "{}"); }
  // As far as a kill can cut it short: no journal, an empty file, or a journal without a round.
  for (const char* state : {"a journal without rounds", "an empty journal", "no journal"}) {
    if (std::string(state) == "an empty journal") write_file_atomically(path() / "journal.db", std::string());
    if (std::string(state) == "no journal") fs::remove(path() / "journal.db");
    RunFolder folder(path(), RunFolderMode::resume);
    EXPECT_FALSE(folder.store().last_round().has_value()) << state;
  }
  {
    RunFolder folder(path(), RunFolderMode::resume);
    commit(folder, 0);
    folder.complete(*folder.store().incomplete_report());
  }
  EXPECT_EQ(expect_intact(), 0U);
}

TEST_F(RunFolderTest, CreatesWhereAnAttemptDiedAtOnce) {
  fs::create_directories(path());
  write_file_atomically(path() / "lock", std::string("1"));
  write_file_atomically(path() / "experiment.json.partial", std::string("{"));
  EXPECT_NO_THROW(RunFolder(path(), RunFolderMode::create, "{}"));
  EXPECT_TRUE(fs::exists(path() / "experiment.json"));
}

TEST_F(RunFolderTest, OfARefusedRunGoesAsItCame) {
  const fs::path inner = path() / "runs" / "x";
  {
    RunFolder folder(inner, RunFolderMode::create, "{}");
    folder.store().set_meta("max_updates", "3");
    folder.discard();
    EXPECT_FALSE(fs::exists(path())) << "with the parents that had to be made";
    folder.discard();
  }
  EXPECT_FALSE(fs::exists(path()));
  // What was there before stays, and so does what somebody else put there.
  fs::create_directories(inner);
  {
    RunFolder folder(inner, RunFolderMode::create, "{}");
    folder.discard();
  }
  EXPECT_TRUE(fs::is_empty(inner));
  {
    RunFolder folder(inner / "y", RunFolderMode::create, "{}");
    write_file_atomically(inner / "y" / "thesis.txt", std::string("x"));
    folder.discard();
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(inner / "y"), fs::directory_iterator()), 1);
}

TEST_F(RunFolderTest, OfARunThatHasBegunIsNeverDiscarded) {
  {
    RunFolder folder(path(), RunFolderMode::create, "{}");
    commit(folder, 0);
    folder.complete(*folder.store().incomplete_report());
    folder.discard();
  }
  EXPECT_EQ(expect_intact(), 0U);
  {
    RunFolder folder(path(), RunFolderMode::resume);
    folder.discard();
  }
  EXPECT_EQ(expect_intact(), 0U);
  RunFolder charged(folder_ / "charged", RunFolderMode::create, "{}");
  charged.charge({{"round", 1}});
  charged.discard();
  EXPECT_TRUE(fs::exists(folder_ / "charged" / "ledger.head"));
}

TEST_F(RunFolderTest, NoticesADamagedOrMissingModel) {
  fill(0);
  const std::string hash = sha256_hex(model_of(0));
  const fs::path blob = path() / "blobs" / hash;
  write_file_atomically(blob, model_of(9));
  const std::string error = error_of([&] { RunFolder(path(), RunFolderMode::resume); });
  EXPECT_THAT(error, HasSubstr(blob.string() + " is damaged: expected SHA-256 " + hash + ", got " + sha256_hex(model_of(9))));
  fs::remove(blob);
  EXPECT_THAT(error_of([&] { RunFolder(path(), RunFolderMode::resume); }), HasSubstr(blob.string() + " is missing"));
  EXPECT_THROW(RunFolder(path(), RunFolderMode::resume), ConfigError);
}

/// A run whose commits do not wait for the disk: rounds 0 … last, of which `synced` is the newest that a power cut cannot take.
class UnsyncedRunTest : public RunFolderTest {
 protected:
  static constexpr Seconds kNeverAgain = 1e6;

  void fill_unsynced(std::uint32_t synced, std::uint32_t last) const {
    RunFolder folder(path(), RunFolderMode::create);
    folder.sync_every(kNeverAgain);
    for (std::uint32_t round = 0; round <= last; ++round) {
      run_round(folder, round);
      if (round == synced) folder.sync();
    }
  }
  /// What a power cut may do to bytes that were never flushed.
  void lose(std::uint32_t round) const { write_file_atomically(path() / "blobs" / sha256_hex(model_of(round)), std::string()); }
};

TEST_F(UnsyncedRunTest, LosesNothingToAProcessThatDies) {
  fill_unsynced(0, 5);
  EXPECT_EQ(expect_intact(), 5U);
}

TEST_F(UnsyncedRunTest, FallsBackToTheNewestRoundThatAPowerCutLeft) {
  fill_unsynced(2, 6);
  lose(6);
  EXPECT_EQ(expect_intact(), 5U);
}

TEST_F(UnsyncedRunTest, FallsBackToTheRoundThatWasSynced) {
  fill_unsynced(2, 6);
  lose(6);
  lose(5);  // the blobs of rounds 3 and 4 were removed as those of old rounds are
  EXPECT_EQ(expect_intact(), 2U);
  RunFolder folder(path(), RunFolderMode::resume);
  folder.sync_every(kNeverAgain);
  run_round(folder, 3);
  EXPECT_EQ(folder.store().last_round()->round, 3U);
}

TEST_F(UnsyncedRunTest, RefusesWhenEvenASyncedRoundIsDamaged) {
  fill_unsynced(6, 6);
  lose(6);
  EXPECT_THAT(error_of([&] { RunFolder(path(), RunFolderMode::resume); }), HasSubstr("is damaged"));
}

TEST_F(UnsyncedRunTest, SyncsItsFirstRoundAtOnceAndEveryRoundWhenAskedTo) {
  {
    RunFolder folder(path(), RunFolderMode::create);
    folder.sync_every(kNeverAgain);
    run_round(folder, 0);
    EXPECT_EQ(folder.store().meta("synced_round"), "0");
    run_round(folder, 1);
    EXPECT_EQ(folder.store().meta("synced_round"), "0");
  }
  RunFolder folder(path(), RunFolderMode::resume);
  folder.sync_every(0);
  EXPECT_EQ(folder.store().meta("synced_round"), "1");
  run_round(folder, 2);
  EXPECT_EQ(folder.store().meta("synced_round"), "2");
}

TEST_F(RunFolderTest, ReadsNoFileOutsideItsBlobs) {
  RunFolder folder(path(), RunFolderMode::create);
  write_file_atomically(folder_ / "secret", std::string("x"));
  EXPECT_THAT(error_of([&] { folder.read_blob("../../secret"); }), HasSubstr("is damaged"));
}

/// Crashes in the child at each step of the round after the one that is on disk; every step gives k or k + 1.
TEST_F(RunFolderTest, IsAtOneVersionOrTheNextAfterACrashAtAnyStep) {
  fill(0);
  const std::vector<std::string> steps = {"model blob written", "state blob written", "round committed",  "model published",
                                          "old blobs removed",  "report stored",      "metrics appended"};
  std::uint32_t version = 0;
  for (const std::string& crash_at : steps) {
    const int status = in_child([&] {
      RunFolder folder(path(), RunFolderMode::resume);
      if (const auto report = folder.store().incomplete_report()) folder.complete(*report);
      folder.watch_steps([&](const std::string& step) {
        if (step == crash_at) ::kill(::getpid(), SIGKILL);
      });
      run_round(folder, version + 1);
    });
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << crash_at << ": the step never came";
    const bool committed = crash_at != "model blob written" && crash_at != "state blob written";
    EXPECT_EQ(expect_intact(), version + (committed ? 1 : 0)) << crash_at;
    version += committed ? 1 : 0;
  }
}

/// Crashes in the middle of a write: the kernel kills the child with SIGXFSZ when a file would pass the limit. Models are
/// 3000 bytes, states 2000, the journal's log tens of thousands, so the limits cut each of them somewhere. Nearer limits
/// first: the crash that comes later in a round needs more.
TEST_F(RunFolderTest, IsAtOneVersionOrTheNextAfterACrashInsideAnyWrite) {
  fill(0);
  std::uint32_t version = 0;
  int killed = 0;
  int finished = 0;
  for (rlim_t limit = 1; limit < 400000; limit += 1 + limit / 3) {
    const int status = in_child([&] {
      RunFolder folder(path(), RunFolderMode::resume);
      if (const auto report = folder.store().incomplete_report()) folder.complete(*report);
      limit_file_size(limit, SIG_DFL);
      run_round(folder, version + 1);
    });
    const bool was_killed = WIFSIGNALED(status);
    ASSERT_TRUE(was_killed ? WTERMSIG(status) == SIGXFSZ : WEXITSTATUS(status) == 0) << limit;
    was_killed ? ++killed : ++finished;
    const std::uint32_t now = expect_intact();
    EXPECT_TRUE(now == version + 1 || (was_killed && now == version)) << limit;
    version = now;
  }
  EXPECT_GT(killed, 10);
  EXPECT_GT(finished, 0);
}

/// The same with the error returned, as by a full disk: an IoError, and the round before is whole.
TEST_F(RunFolderTest, ReportsAFullDiskAndKeepsTheLastVersion) {
  fill(0);
  std::uint32_t version = 0;
  int refused = 0;
  for (rlim_t limit = 1; limit < 400000; limit += 1 + limit / 3) {
    const int status = in_child([&] {
      RunFolder folder(path(), RunFolderMode::resume);
      if (const auto report = folder.store().incomplete_report()) folder.complete(*report);
      limit_file_size(limit, SIG_IGN);
      run_round(folder, version + 1);
    });
    ASSERT_TRUE(WIFEXITED(status)) << limit;
    ASSERT_TRUE(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 4) << limit << ": exit " << WEXITSTATUS(status);
    refused += WEXITSTATUS(status) == 4 ? 1 : 0;
    const std::uint32_t now = expect_intact();
    EXPECT_TRUE(now == version || now == version + 1) << limit;
    version = now;
  }
  EXPECT_GT(refused, 10);
  EXPECT_GT(version, 0U);
}

TEST_F(RunFolderTest, NamesTheFileAndTheWayOutWhenTheDiskIsFull) {
  fill(0);
  const int status = in_child([&] {
    RunFolder folder(path(), RunFolderMode::resume);
    limit_file_size(100, SIG_IGN);
    const std::string error = error_of([&] { run_round(folder, 1); });
    if (error.find(sha256_hex(model_of(1))) == std::string::npos) ::_exit(3);
    if (error.find("File too large") == std::string::npos) ::_exit(5);
  });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace fl
