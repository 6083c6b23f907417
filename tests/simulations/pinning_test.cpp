#include "simulations/pinning.h"

#include <gmock/gmock.h>

#include <thread>

namespace fl {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

/// Four cores of two threads each, numbered as Linux usually does: CPU i and CPU i + 4 are one core.
CoreOfCpu four_cores_of_two_threads() {
  CoreOfCpu cores;
  for (int cpu = 0; cpu < 8; ++cpu) cores[cpu] = cpu % 4;
  return cores;
}
const std::vector<int> kEight = {0, 1, 2, 3, 4, 5, 6, 7};

TEST(AssignCpus, GivesEachWorkerOneOfItsOwn) {
  EXPECT_THAT(assign_cpus({{{0, 1}, 2}}, {}), ElementsAre(ElementsAre(0, 1)));
}

TEST(AssignCpus, KeepsToTheMask) {
  EXPECT_THAT(assign_cpus({{{3, 5, 9}, 2}}, {}), ElementsAre(ElementsAre(3, 5)));
}

TEST(AssignCpus, TakesWholeCoresBeforeSecondThreads) {
  EXPECT_THAT(assign_cpus({{kEight, 4}}, four_cores_of_two_threads()), ElementsAre(ElementsAre(0, 1, 2, 3)));
  EXPECT_THAT(assign_cpus({{kEight, 6}}, four_cores_of_two_threads()), ElementsAre(ElementsAre(0, 1, 2, 3, 4, 5)));
  // Neighbouring numbers are one core on other machines.
  const CoreOfCpu neighbours = {{0, 0}, {1, 0}, {2, 2}, {3, 2}};
  EXPECT_THAT(assign_cpus({{{0, 1, 2, 3}, 2}}, neighbours), ElementsAre(ElementsAre(0, 2)));
}

TEST(AssignCpus, SplitsAMaskThatRanksShare) {
  EXPECT_THAT(assign_cpus({{kEight, 2}, {kEight, 2}}, four_cores_of_two_threads()), ElementsAre(ElementsAre(0, 1), ElementsAre(2, 3)));
  EXPECT_THAT(assign_cpus({{kEight, 4}, {kEight, 4}}, four_cores_of_two_threads()), ElementsAre(ElementsAre(0, 1, 2, 3), ElementsAre(4, 5, 6, 7)));
}

TEST(AssignCpus, LeavesRanksWithMasksOfTheirOwnAtHome) {
  EXPECT_THAT(assign_cpus({{{0, 1}, 2}, {{2, 3}, 1}}, {}), ElementsAre(ElementsAre(0, 1), ElementsAre(2)));
}

TEST(AssignCpus, PinsNobodyWhereOneWorkerWouldHaveNone) {
  EXPECT_THAT(assign_cpus({{{0, 1}, 3}}, {}), IsEmpty());
  EXPECT_THAT(assign_cpus({{{0, 1}, 2}, {{0, 1}, 1}}, {}), IsEmpty());
  EXPECT_THAT(assign_cpus({{{}, 1}}, {}), IsEmpty()) << "a system that does not tell its CPUs";
}

TEST(TakeAllCpus, CountsTheCpusThatRanksShareOnce) {
  EXPECT_TRUE(take_all_cpus({{{0, 1}, 2}}));
  EXPECT_FALSE(take_all_cpus({{{0, 1}, 1}}));
  EXPECT_TRUE(take_all_cpus({{{0, 1}, 1}, {{0, 1}, 1}}));
  EXPECT_FALSE(take_all_cpus({{{0, 1}, 1}, {{2, 3}, 2}}));
}

TEST(ShareOfCpus, DividesWhatSeveralMayUse) {
  EXPECT_EQ(share_of_cpus({{kEight, 0}}, 0), 8U);
  EXPECT_EQ(share_of_cpus({{kEight, 0}, {kEight, 0}}, 1), 4U);
  // 2 of its own and half of 2.
  EXPECT_EQ(share_of_cpus({{{0, 1, 2, 3}, 0}, {{2, 3}, 0}}, 0), 3U);
  EXPECT_EQ(share_of_cpus({{{0}, 0}, {{0}, 0}, {{0}, 0}}, 2), 1U) << "at least one";
  // Six thirds are two, although they add up to a little less in binary.
  const CpuUser six = {{0, 1, 2, 3, 4, 5}, 0};
  EXPECT_EQ(share_of_cpus({six, six, six}, 0), 2U);
}

TEST(CpuLists, BeginWithTheNumberOfTheirCore) {
  EXPECT_EQ(first_of_cpu_list("7"), 7);
  EXPECT_EQ(first_of_cpu_list("2,34"), 2);
  EXPECT_EQ(first_of_cpu_list("2-3"), 2);
  for (const char* bad : {"", "x", "-1", "2x", "99999999999"}) EXPECT_EQ(first_of_cpu_list(bad), -1) << bad;
}

TEST(PinThisThread, LeavesTheThreadOneCpuAndOthersTheirs) {
  const std::vector<int> before = allowed_cpus();
  ASSERT_FALSE(before.empty());
  EXPECT_THAT(cores_of_this_machine(), testing::AnyOf(IsEmpty(), SizeIs(before.size())));
  std::vector<int> pinned;
  bool done = false;
  std::thread([&] {
    done = pin_this_thread(before.back());
    pinned = allowed_cpus();
  }).join();
  EXPECT_TRUE(done);
  EXPECT_THAT(pinned, ElementsAre(before.back()));
  EXPECT_EQ(allowed_cpus(), before);
}

}  // namespace
}  // namespace fl
