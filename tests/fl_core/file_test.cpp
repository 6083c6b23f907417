#include "fl_core/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::TemporaryFolder;
using testing::AllOf;
using testing::HasSubstr;

constexpr std::uint64_t kLimit = 1 << 20;

std::size_t entries(const std::filesystem::path& folder) {
  return static_cast<std::size_t>(
      std::distance(std::filesystem::directory_iterator(folder), std::filesystem::directory_iterator()));
}

/// No file may grow beyond `bytes` while this lives; a longer write fails with EFBIG, as on a full disk it does with
/// ENOSPC.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : signal_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, signal_);
  }
  FileSizeLimit(const FileSizeLimit&) = delete;
  FileSizeLimit& operator=(const FileSizeLimit&) = delete;

 private:
  void (*signal_)(int);
  rlimit before_{};
};

/// Root may write anywhere, so a test of refused access runs as the user "nobody" while this lives.
class Unprivileged {
 public:
  Unprivileged() : user_(::geteuid()) {
    if (user_ == 0) changed_ = ::seteuid(65534) == 0;
  }
  ~Unprivileged() {
    if (changed_ && ::seteuid(user_) != 0) std::abort();
  }
  Unprivileged(const Unprivileged&) = delete;
  Unprivileged& operator=(const Unprivileged&) = delete;

 private:
  uid_t user_;
  bool changed_ = false;
};

TEST(WriteFileAtomically, MakesAndReplacesAFileAndLeavesNothingElse) {
  const TemporaryFolder folder;
  const auto path = folder / "file";
  write_file_atomically(path, std::string("first"));
  EXPECT_EQ(read_text_file(path, kLimit), "first");
  write_file_atomically(path, std::string("2"));
  EXPECT_EQ(read_text_file(path, kLimit), "2");
  write_file_atomically(path, std::string());
  EXPECT_EQ(read_text_file(path, kLimit), "");
  EXPECT_EQ(entries(folder.path()), 1U);
}

TEST(WriteFileAtomically, WritesBytesThatReadFileGivesBack) {
  const TemporaryFolder folder;
  const std::vector<std::byte> bytes = {std::byte{0}, std::byte{255}, std::byte{10}};
  write_file_atomically(folder / "file", bytes);
  EXPECT_EQ(read_file(folder / "file", kLimit), bytes);
}

TEST(WriteFileAtomically, KeepsTheOldContentsWhenTheDiskTakesNoMore) {
  const TemporaryFolder folder;
  const auto path = folder / "file";
  write_file_atomically(path, std::string("old"));
  std::string message;
  {
    const FileSizeLimit limit(4096);
    message = error_of([&] { write_file_atomically(path, std::string(10'000, 'x')); });
  }
  EXPECT_THAT(message, AllOf(HasSubstr("cannot write"), HasSubstr(path.string()), HasSubstr("File too large")));
  EXPECT_EQ(read_text_file(path, kLimit), "old");
  EXPECT_EQ(entries(folder.path()), 1U) << "the partial file was left behind";
}

TEST(WriteFileAtomically, KeepsAFolderThatIsInThePlaceOfTheFile) {
  const TemporaryFolder folder;
  make_folder(folder / "taken");
  EXPECT_THAT(error_of([&] { write_file_atomically(folder / "taken", std::string("x")); }),
              AllOf(HasSubstr("taken"), HasSubstr("Is a directory")));
  EXPECT_EQ(entries(folder.path()), 1U) << "the partial file was left behind";
}

TEST(WriteFileAtomically, NamesAMissingFolder) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { write_file_atomically(folder / "no" / "file", std::string("x")); }),
              AllOf(HasSubstr("no/file"), HasSubstr("No such file or directory")));
}

TEST(WriteFileAtomically, SaysWhatToDoAboutAFolderThatIsNotOurs) {
  const TemporaryFolder folder;
  make_folder(folder / "theirs");
  ASSERT_EQ(::chmod((folder / "theirs").c_str(), 0555), 0);
  std::string message;
  {
    const Unprivileged nobody;
    message = error_of([&] { write_file_atomically(folder / "theirs" / "file", std::string("x")); });
  }
  EXPECT_THAT(message,
              AllOf(HasSubstr("theirs/file: Permission denied"), HasSubstr("choose a folder that you may write to")));
}

TEST(ReadFile, NamesWhatItCannotRead) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_of([&] { read_file(folder / "missing", kLimit); }),
              AllOf(HasSubstr("cannot open"), HasSubstr("missing"), HasSubstr("No such file")));
  EXPECT_THAT(error_of([&] { read_text_file(folder.path(), kLimit); }), HasSubstr("Is a directory"));
}

TEST(ReadFile, RefusesAFileBeyondTheLimit) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", std::string("12345"));
  EXPECT_EQ(read_text_file(folder / "file", 5), "12345");
  EXPECT_THAT(error_of([&] { read_text_file(folder / "file", 4); }), HasSubstr("it has 5 bytes, the limit is 4"));
}

TEST(MakeFolder, MakesParentsAndAcceptsWhatExists) {
  const TemporaryFolder folder;
  make_folder(folder / "a" / "b");
  make_folder(folder / "a" / "b");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a" / "b"));
}

TEST(MakeFolder, RefusesAFileInItsPlace) {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", std::string("x"));
  EXPECT_THAT(error_of([&] { make_folder(folder / "file"); }),
              AllOf(HasSubstr("cannot create the folder"), HasSubstr("file")));
  EXPECT_THAT(error_of([&] { make_folder(folder / "file" / "below"); }), HasSubstr("Not a directory"));
}

TEST(MakeFolder, TellsWhatHasToGoAgain) {
  namespace fs = std::filesystem;
  const TemporaryFolder folder;
  const fs::path deep = folder / "a" / "b" / "c";
  EXPECT_EQ(make_folder(deep), folder / "a");
  EXPECT_EQ(make_folder(deep), "");
  EXPECT_EQ(make_folder(folder / "a" / "b" / "d" / ""), folder / "a" / "b" / "d") << "a slash at the end is no folder of its own";
  remove_empty_folders(folder / "a" / "b" / "d" / "", folder / "a" / "b" / "d");
  EXPECT_FALSE(fs::exists(folder / "a" / "b" / "d"));
  EXPECT_TRUE(fs::exists(deep));
  remove_empty_folders(deep, "");
  EXPECT_TRUE(fs::exists(deep)) << "it was there before";
  write_file_atomically(folder / "a" / "kept", std::string("x"));
  remove_empty_folders(deep, folder / "a");
  EXPECT_FALSE(fs::exists(folder / "a" / "b"));
  EXPECT_TRUE(fs::exists(folder / "a" / "kept")) << "only empty ones go";
}

}  // namespace
}  // namespace fl
