#include "client/state_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "fl_core/base/error.h"
#include "fl_core/base/file.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr std::uint64_t kRoom = 1'000'000;

SharedBuffer some_bytes(std::size_t size, unsigned seed = 1) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + seed * 7 + i / 251);
  return SharedBuffer(std::move(bytes));
}

bool same(const SharedBuffer& a, const SharedBuffer& b) { return a.size() == b.size() && reference_to(a.span()) == reference_to(b.span()); }

class StateFolderTest : public ::testing::Test {
 protected:
  StateFolderTest() { reopen(); }
  void reopen(std::uint64_t cache_bytes = kRoom) {
    state.reset();
    state.emplace(folder / "state", cache_bytes);
  }
  /// Receives blob[from, to).
  void receive(PartialBlob& part, const SharedBuffer& blob, std::size_t from, std::size_t to) {
    const auto piece = blob.span().subspan(from, to - from);
    std::copy(piece.begin(), piece.end(), part.bytes().begin() + static_cast<std::ptrdiff_t>(from));
    part.received = to;
    EXPECT_EQ(state->append(part), "");
  }
  void fetch(const SharedBuffer& blob) {
    const auto part = state->open_part(reference_to(blob.span()));
    receive(*part, blob, static_cast<std::size_t>(part->received.load()), blob.size());
    ASSERT_TRUE(state->finish(part));
  }
  StoredAnswer answer(std::uint32_t round, char key = 'a') {
    StoredAnswer one;
    one.key = std::string(64, key);
    one.run = std::string(32, '1');
    one.request = 12;
    one.type = MessageType::update;
    one.round = round;
    one.header = some_bytes(90);
    return one;
  }
  std::set<std::string> files(const std::string& name) {
    std::set<std::string> found;
    for (const auto& entry : std::filesystem::directory_iterator(folder.path() / "state" / name)) found.insert(entry.path().filename().string());
    return found;
  }
  std::filesystem::path pending(const std::string& file) { return folder.path() / "state" / "pending" / file; }

  test::TemporaryFolder folder;
  std::optional<StateFolder> state;
};

TEST_F(StateFolderTest, BelongsToOneProgramAtATime) {
  EXPECT_THAT(test::error_of([&] { StateFolder other(folder / "state", kRoom); }), HasSubstr("is in use by another fl-client"));
  state.reset();
  StateFolder other(folder / "state", kRoom);
}

TEST_F(StateFolderTest, SaysThatAFolderCannotBeUsed) {
  std::ofstream(folder / "file") << "x";
  EXPECT_THAT(test::error_of([&] { StateFolder other(folder / "file", kRoom); }), HasSubstr((folder / "file").string()));
}

TEST_F(StateFolderTest, KeepsThePlan) {
  EXPECT_EQ(state->load_plan(), "");
  state->store_plan("{\"a\": 1}");
  reopen();
  EXPECT_EQ(state->load_plan(), "{\"a\": 1}");
}

TEST_F(StateFolderTest, KeepsABlobOverARestart) {
  const SharedBuffer blob = some_bytes(200'000);
  const BlobReference reference = reference_to(blob.span());
  EXPECT_FALSE(state->find_blob(reference));
  fetch(blob);
  EXPECT_TRUE(same(*state->find_blob(reference), blob));
  reopen();
  EXPECT_TRUE(same(*state->find_blob(reference), blob));
  EXPECT_THAT(files("blobs"), SizeIs(1));
}

TEST_F(StateFolderTest, DoesNotTrustADamagedBlob) {
  const SharedBuffer blob = some_bytes(200'000);
  const BlobReference reference = reference_to(blob.span());
  fetch(blob);
  state.reset();
  {
    std::fstream file(folder.path() / "state" / "blobs" / reference.hex(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(1000);
    file.put('\x7f');
  }
  reopen();
  EXPECT_FALSE(state->find_blob(reference));
  EXPECT_THAT(files("blobs"), SizeIs(0));
}

TEST_F(StateFolderTest, GoesOnWithAPartAfterARestart) {
  const SharedBuffer blob = some_bytes(200'000);
  receive(*state->open_part(reference_to(blob.span())), blob, 0, 77'777);
  reopen();
  const auto part = state->open_part(reference_to(blob.span()));
  EXPECT_EQ(part->received.load(), 77'777U);
  receive(*part, blob, 77'777, blob.size());
  const auto whole = state->finish(part);
  ASSERT_TRUE(whole);
  EXPECT_TRUE(same(*whole, blob));
}

TEST_F(StateFolderTest, GoesOnWithAPartInMemoryWithoutReadingIt) {
  const SharedBuffer blob = some_bytes(200'000);
  const auto part = state->open_part(reference_to(blob.span()));
  receive(*part, blob, 0, 500);
  EXPECT_EQ(state->open_part(reference_to(blob.span())), part);
}

TEST_F(StateFolderTest, DropsAPartWhoseHashIsWrong) {
  const SharedBuffer blob = some_bytes(200'000);
  const BlobReference reference = reference_to(blob.span());
  const auto part = state->open_part(reference);
  receive(*part, some_bytes(200'000, 2), 0, blob.size());
  EXPECT_FALSE(state->finish(part));
  EXPECT_FALSE(state->find_blob(reference));
  EXPECT_THAT(files("blobs"), SizeIs(0));
  EXPECT_EQ(state->open_part(reference)->received.load(), 0U);
}

TEST_F(StateFolderTest, DoesNotGoOnWithAPartThatIsTooLong) {
  const SharedBuffer blob = some_bytes(1000);
  std::ofstream(folder.path() / "state" / "blobs" / (reference_to(blob.span()).hex() + ".part")) << std::string(1001, 'x');
  EXPECT_EQ(state->open_part(reference_to(blob.span()))->received.load(), 0U);
}

TEST_F(StateFolderTest, KeepsOnePartOnly) {
  receive(*state->open_part(reference_to(some_bytes(1000, 1).span())), some_bytes(1000, 1), 0, 500);
  receive(*state->open_part(reference_to(some_bytes(1000, 2).span())), some_bytes(1000, 2), 0, 500);
  EXPECT_THAT(files("blobs"), SizeIs(1));
}

TEST_F(StateFolderTest, DropsTheOldestBlobsButNeverTheNewest) {
  reopen(2500);
  for (unsigned seed = 1; seed <= 3; ++seed) {
    fetch(some_bytes(1000, seed));
    // Ages that do not depend on the clock's resolution.
    const auto path = folder.path() / "state" / "blobs" / reference_to(some_bytes(1000, seed).span()).hex();
    std::filesystem::last_write_time(path, std::filesystem::file_time_type::clock::now() - std::chrono::hours(10 - seed));
  }
  // 3000 bytes are above 2500: the first went.
  EXPECT_THAT(files("blobs"), SizeIs(2));
  EXPECT_FALSE(state->find_blob(reference_to(some_bytes(1000, 1).span())));
  EXPECT_TRUE(state->find_blob(reference_to(some_bytes(1000, 3).span())));
  reopen(10);
  fetch(some_bytes(1000, 4));
  EXPECT_THAT(files("blobs"), SizeIs(1));
  EXPECT_TRUE(state->find_blob(reference_to(some_bytes(1000, 4).span())));
}

TEST_F(StateFolderTest, LeavesNoTraceOfABlobThatIsNotKept) {
  const SharedBuffer model = some_bytes(2'000, 1);
  fetch(model);
  const SharedBuffer blob = some_bytes(3'000, 2);
  const auto part = state->open_part(reference_to(blob.span()), false);
  receive(*part, blob, 0, 1'000);
  EXPECT_EQ(state->open_part(reference_to(blob.span()), false), part) << "a broken connection goes on with it";
  receive(*part, blob, 1'000, 3'000);
  EXPECT_THAT(files("blobs"), SizeIs(1)) << "the model";
  const auto whole = state->finish(part);
  ASSERT_TRUE(whole);
  EXPECT_TRUE(same(*whole, blob));
  EXPECT_THAT(files("blobs"), SizeIs(1));
  EXPECT_FALSE(state->find_blob(reference_to(blob.span())));
  std::filesystem::remove_all(folder.path() / "state" / "blobs");
  EXPECT_TRUE(state->find_blob(reference_to(model.span()))) << "the model is still in memory";
}

TEST_F(StateFolderTest, HoldsNoAnswersOfSecureAggregation) {
  StoredAnswer one = answer(4);
  one.type = MessageType::secure_answer;
  EXPECT_THAT(test::error_of([&] { state->keep_answer(one, some_bytes(10)); }), HasSubstr("must not be on disk"));
  EXPECT_THAT(files("pending"), SizeIs(0));
  // Nor believes a file that says it is one.
  one.type = MessageType::update;
  state->keep_answer(one, SharedBuffer());
  const auto path = pending(one.key + ".json");
  nlohmann::json stored = nlohmann::json::parse(std::ifstream(path));
  stored["type"] = static_cast<unsigned>(MessageType::secure_answer);
  std::ofstream(path) << stored;
  reopen();
  EXPECT_THAT(state->load_answers(), SizeIs(0));
  EXPECT_THAT(files("pending"), SizeIs(0));
}

TEST_F(StateFolderTest, KeepsAnswersUntilTheyAreForgotten) {
  const SharedBuffer body = some_bytes(70'000);
  StoredAnswer later = answer(5, 'b');
  StoredAnswer earlier = answer(4, 'a');
  state->keep_answer(later, body);
  state->keep_answer(earlier, SharedBuffer());
  EXPECT_EQ(later.body, reference_to(body.span()));
  reopen();
  const auto answers = state->load_answers();
  ASSERT_THAT(answers, SizeIs(2));
  EXPECT_EQ(answers[0].key, earlier.key);
  EXPECT_EQ(answers[0].body.size_bytes, 0U);
  EXPECT_EQ(answers[1].key, later.key);
  EXPECT_EQ(answers[1].run, later.run);
  EXPECT_EQ(answers[1].request, 12U);
  EXPECT_EQ(answers[1].round, 5U);
  EXPECT_EQ(answers[1].type, MessageType::update);
  EXPECT_TRUE(same(answers[1].header, later.header));
  EXPECT_TRUE(same(state->load_body(answers[1]), body));
  EXPECT_EQ(state->load_body(answers[0]).size(), 0U);

  state->forget_answer(later.key);
  state->forget_answer(earlier.key);
  EXPECT_THAT(files("pending"), SizeIs(0));
  EXPECT_THAT(state->load_answers(), SizeIs(0));
}

TEST_F(StateFolderTest, KeepsAnswersFromOtherUsersOfTheMachine) {
  StoredAnswer one = answer(4);
  state->keep_answer(one, some_bytes(1000));
  for (const char* file : {".json", ".body"}) {
    struct stat info {};
    ASSERT_EQ(::stat(pending(one.key + file).c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 0777U, 0600U) << file;
  }
}

TEST_F(StateFolderTest, DropsAnswersThatAreNotWhole) {
  StoredAnswer good = answer(4, 'a');
  StoredAnswer cut = answer(5, 'b');
  StoredAnswer bare = answer(6, 'c');
  for (StoredAnswer* one : {&good, &cut, &bare}) state->keep_answer(*one, some_bytes(1000));
  std::filesystem::resize_file(pending(cut.key + ".body"), 999);
  std::filesystem::remove(pending(bare.key + ".json"));
  std::ofstream(pending(std::string(64, 'd') + ".json")) << "{\"run\": 3}";
  std::ofstream(pending(std::string(64, 'e') + ".json")) << "no JSON";
  std::ofstream(pending("README")) << "x";
  reopen();
  const auto answers = state->load_answers();
  ASSERT_THAT(answers, SizeIs(1));
  EXPECT_EQ(answers[0].key, good.key);
  EXPECT_THAT(files("pending"), SizeIs(2));
}

TEST_F(StateFolderTest, DoesNotDeliverADamagedBody) {
  StoredAnswer one = answer(4);
  state->keep_answer(one, some_bytes(1000));
  {
    std::fstream file(pending(one.key + ".body"), std::ios::in | std::ios::out | std::ios::binary);
    file.put('\x7f');
  }
  EXPECT_THAT(test::error_of([&] { state->load_body(one); }), HasSubstr("have changed"));
  EXPECT_THAT(files("pending"), SizeIs(0));
}

TEST_F(StateFolderTest, WorksWithoutAFolder) {
  StateFolder memory("", kRoom);
  const SharedBuffer blob = some_bytes(1000);
  const BlobReference reference = reference_to(blob.span());
  EXPECT_FALSE(memory.find_blob(reference));
  const auto part = memory.open_part(reference);
  std::copy(blob.span().begin(), blob.span().end(), part->bytes().begin());
  part->received = 1000;
  EXPECT_TRUE(same(*memory.finish(part), blob));
  EXPECT_TRUE(same(*memory.find_blob(reference), blob));
  StoredAnswer one = answer(4);
  memory.keep_answer(one, blob);
  EXPECT_TRUE(same(memory.load_body(one), blob));
  memory.forget_answer(one.key);
  EXPECT_THAT(test::error_of([&] { memory.load_body(one); }), HasSubstr("is gone"));
  memory.store_plan("{}");
  EXPECT_EQ(memory.load_plan(), "");
}

}  // namespace
}  // namespace fl
