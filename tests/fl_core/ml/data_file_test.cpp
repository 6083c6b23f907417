#include "fl_core/ml/datasets/data_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/data_files.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using test::gz;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class DataFiles : public ::testing::Test {
 protected:
  DataFile file(const std::string& contents) { return DataFile(path(contents), "hint"); }
  std::string path(const std::string& contents) { return test::write_file(folder_ / "file", contents); }
  /// The error of reading all of a file that should hold `size` bytes.
  std::string reading(const std::string& contents, std::uint64_t size) {
    return error_of([&] { file(contents).exactly(0, size, "layout"); });
  }

  test::TemporaryFolder folder_;
};

TEST_F(DataFiles, ReadsRawAndGzAlike) {
  for (const std::string& contents : {std::string("abcdef"), gz("abcdef"), gz("abc") + gz("def")}) {
    const DataFile data = file(contents);
    EXPECT_THAT(data.prefix(2), ElementsAre('a', 'b'));
    EXPECT_EQ(data.prefix(100).size(), 6U);
    EXPECT_THAT(data.exactly(4, 6, "layout"), ElementsAre('e', 'f'));
    EXPECT_EQ(data.text(), "abcdef");
  }
}

TEST_F(DataFiles, ReadsTextsLargerThanOnePiece) {
  std::string large;
  for (int i = 0; i < 400000; ++i) large += std::to_string(i);
  EXPECT_EQ(file(gz(large)).text(), large);
}

TEST_F(DataFiles, RejectsWrongSizes) {
  EXPECT_EQ(reading("abc", 4), (folder_ / "file").string() + ": has 3 bytes, expected 4 (layout); fetch the file again");
  EXPECT_THAT(reading("abcde", 4), HasSubstr("has 5 bytes, expected 4"));
  EXPECT_THAT(reading(gz("abc"), 4), HasSubstr("has 3 bytes when inflated, expected 4"));
  EXPECT_THAT(reading(gz("abcde"), 4), HasSubstr("has more bytes when inflated, expected 4"));
}

TEST_F(DataFiles, RejectsEveryTruncationOfGz) {
  const std::string whole = gz("some text, some text, some other text");
  for (std::size_t size = 2; size < whole.size(); ++size) {
    EXPECT_THAT(error_of([&] { file(whole.substr(0, size)).text(); }), HasSubstr("the gz data end too early")) << size;
    EXPECT_THAT(reading(whole.substr(0, size), 37), HasSubstr("the gz data end too early")) << size;
  }
}

TEST_F(DataFiles, RejectsDamagedGzByItsChecksum) {
  std::string damaged = gz("some text, some text, some other text");
  damaged[damaged.size() - 6] ^= 1;  // the CRC is in the last 8 bytes
  EXPECT_THAT(error_of([&] { file(damaged).text(); }), HasSubstr("damaged gz data (incorrect data check)"));
  EXPECT_THAT(reading(damaged, 37), HasSubstr("damaged gz data"));
}

TEST_F(DataFiles, RejectsOtherBytesAfterGz) {
  EXPECT_THAT(error_of([&] { file(gz("abc") + "tail").text(); }), HasSubstr("4 bytes of something else follow the gz data"));
}

TEST_F(DataFiles, RefusesToInflateWhatAHeaderClaimsBeyondTheRatioOfDeflate) {
  // 23 bytes of gz cannot hold 8 GiB; nothing of that size is allocated.
  EXPECT_THAT(reading(gz("abc"), 8ULL << 30U), HasSubstr("has fewer bytes when inflated"));
  EXPECT_THAT(reading("abc", 1ULL << 40U), HasSubstr("more than the limit"));
}

TEST_F(DataFiles, StopsInflatingABombAtTheSizeExpected) {
  EXPECT_THAT(reading(gz(std::string(10'000'000, '\0')), 16), HasSubstr("has more bytes when inflated, expected 16"));
}

TEST_F(DataFiles, NamesAbsentEmptyAndOddFiles) {
  EXPECT_EQ(error_of([&] { DataFile((folder_ / "absent").string(), "get it there"); }),
            (folder_ / "absent").string() + ": no such file; get it there");
  EXPECT_THAT(error_of([&] { DataFile(folder_.path().string(), "hint"); }), HasSubstr(": is no regular file; hint"));
  EXPECT_THAT(error_of([&] { file(""); }), HasSubstr(": is empty; hint"));
}

TEST_F(DataFiles, ThrowsConfigErrors) {
  EXPECT_THROW(DataFile("/no/such/file", "hint"), ConfigError);
  EXPECT_THROW(file(gz("abc").substr(0, 10)).text(), ConfigError);
}

}  // namespace
}  // namespace fl
