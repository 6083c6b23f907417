#include "fl_core/params/layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "fl_core/base/sha256.h"
#include "fl_core/params/parameter_vector.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using test::error_of;
using testing::HasSubstr;

Slot weight(std::string name, std::vector<std::int64_t> shape) {
  return {std::move(name), std::move(shape), SlotKind::weight};
}
Slot statistic(std::string name, std::vector<std::int64_t> shape) {
  return {std::move(name), std::move(shape), SlotKind::statistic};
}

TEST(Layout, PlacesSlotsOneAfterAnother) {
  const Layout layout({weight("w", {2, 3}), weight("b", {3}), weight("scale", {}), statistic("mean", {4})});
  ASSERT_EQ(layout.slots().size(), 4U);
  EXPECT_EQ(layout.slots()[1].offset, 6U);
  EXPECT_EQ(layout.slots()[1].size, 3U);
  EXPECT_EQ(layout.slots()[2].size, 1U) << "a scalar is one float";
  EXPECT_EQ(layout.slots()[3].offset, 10U);
  EXPECT_EQ(layout.size(), 14U);
  EXPECT_EQ(layout.weight_count(), 10U);
}

TEST(Layout, HasAFingerprintOfNamesShapesAndKinds) {
  const auto fingerprint = [](std::vector<Slot> slots) { return Layout(std::move(slots)).fingerprint(); };
  const auto base = fingerprint({weight("w", {2, 3}), weight("b", {3})});
  EXPECT_EQ(fingerprint({weight("w", {2, 3}), weight("b", {3})}), base);
  EXPECT_NE(fingerprint({weight("v", {2, 3}), weight("b", {3})}), base);
  EXPECT_NE(fingerprint({weight("w", {3, 2}), weight("b", {3})}), base);
  EXPECT_NE(fingerprint({weight("w", {6}), weight("b", {3})}), base);
  EXPECT_NE(fingerprint({weight("b", {3}), weight("w", {2, 3})}), base);
  EXPECT_NE(fingerprint({weight("w", {2, 3}), statistic("b", {3})}), base);
}

TEST(Layout, KeepsItsFingerprintBetweenReleases) {
  // Client and server of different versions compare it: the text that is hashed must not change.
  const std::string text = "w:w:2:3\nmean:s:4\n";
  const std::string hex = sha256_hex(std::as_bytes(std::span(text)));
  EXPECT_EQ(Layout({weight("w", {2, 3}), statistic("mean", {4})}).fingerprint(),
            std::stoull(hex.substr(0, 16), nullptr, 16));
}

TEST(Layout, RefusesSlotsThatCannotBe) {
  EXPECT_THAT(error_of([] { Layout({weight("w", {1}), weight("w", {2})}); }), HasSubstr("two slots named 'w'"));
  EXPECT_THAT(error_of([] { Layout({statistic("s", {1}), weight("w", {2})}); }), HasSubstr("'w' after a statistic"));
  EXPECT_THAT(error_of([] { Layout({weight("w", {2, 0})}); }), HasSubstr("'w' is empty or too large"));
  EXPECT_THAT(error_of([] { Layout({weight("w", {-1})}); }), HasSubstr("'w' is empty or too large"));
  EXPECT_THAT(error_of([] { Layout({weight("w", {1 << 20, 1 << 20})}); }), HasSubstr("'w' is empty or too large"));
}

TEST(ParameterVector, StartsAtZeroAndClonesItsValues) {
  const auto layout = std::make_shared<const Layout>(std::vector<Slot>{weight("w", {2}), weight("b", {1})});
  ParameterVector vector(layout);
  EXPECT_THAT(vector.values(), testing::Each(0.0F));
  vector.values()[2] = 5;
  const ParameterVector copy = vector.clone();
  vector.values()[2] = 6;
  EXPECT_THAT(copy.values(), testing::ElementsAre(0, 0, 5));
  EXPECT_THAT(copy.slot(layout->slots()[1]), testing::ElementsAre(5));
  EXPECT_EQ(copy.layout(), layout);
  EXPECT_EQ(copy.bytes().size(), 12U);
}

}  // namespace
}  // namespace fl
