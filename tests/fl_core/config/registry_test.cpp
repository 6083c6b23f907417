#include "fl_core/config/registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fl_core/config/json_reader.h"
#include "tests/support/test_support.h"

namespace fl {
namespace {

using nlohmann::json;
using test::error_of;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class Animal {
 public:
  virtual ~Animal() = default;
  virtual std::string says() const = 0;
};

struct DogOptions {
  std::int64_t barks = 2;
  std::int64_t most = 3;
  void fields(Fields& f) {
    f.integer("barks", barks, {0, 9}, "how often it barks");
    f.integer("most", most, {0, 9}, "the most it may bark");
  }
  void check(const std::string& path) const {
    if (barks > most) bad_value(join_path(path, "barks"), barks, "at most 'most'");
  }
};

class Dog final : public Animal {
 public:
  Dog(const DogOptions& options, const std::string& word) : options_(options), word_(word) {}
  std::string says() const override {
    std::string text;
    for (std::int64_t i = 0; i < options_.barks; ++i) text += word_;
    return text;
  }

 private:
  DogOptions options_;
  std::string word_;
};

class Fish final : public Animal {
 public:
  Fish(const NoOptions&, const std::string&) {}
  std::string says() const override { return ""; }
};

using AnimalRegistry = Registry<Animal, const std::string&>;

AnimalRegistry& animals() {
  static AnimalRegistry registry("animal");
  return registry;
}

FL_REGISTER(animals(), "dog", Dog, DogOptions, "barks");
FL_REGISTER(animals(), "fish", Fish, NoOptions, "is silent");

struct ZooOptions {
  json star = {{"name", "dog"}};
  json others = json::array();
  json guest;
  bool wants_guest = false;
  void fields(Fields& f) {
    f.component("star", star, "animal", "the main animal");
    f.components("others", others, "animal", "more animals");
    if (wants_guest) f.component("guest", guest, "animal", "has no default");
  }
};

ZooOptions read_zoo(const json& object, bool wants_guest = false) {
  ZooOptions zoo;
  zoo.wants_guest = wants_guest;
  read_fields(object, "zoo", [&](Fields& f) { zoo.fields(f); });
  return zoo;
}

TEST(Registry, CreatesAComponentByName) {
  EXPECT_EQ(animals().create({{"name", "dog"}, {"barks", 3}}, "pet", "wau")->says(), "wauwauwau");
  EXPECT_EQ(animals().create({{"name", "dog"}}, "pet", "wau")->says(), "wauwau");
  EXPECT_EQ(animals().create({{"name", "fish"}}, "pet", "wau")->says(), "");
  EXPECT_THAT(animals().names(), ElementsAre("dog", "fish"));
}

TEST(Registry, NamesTheNearestNameOfAnUnknownComponent) {
  const auto failure = [](const json& component) {
    return error_of([&] { animals().create(component, "pet", "wau"); });
  };
  EXPECT_EQ(failure({{"name", "dgo"}}), "pet.name: there is no animal 'dgo'; did you mean 'dog'?");
  EXPECT_EQ(failure({{"name", "elephant"}}), "pet.name: there is no animal 'elephant'; known: dog, fish");
  EXPECT_THAT(failure({{"name", 3}}), HasSubstr("pet.name: got 3, expected the name of a animal"));
  EXPECT_THAT(failure("dog"),
              AllOf(HasSubstr("pet: got \"dog\""), HasSubstr("{\"name\": …}"), HasSubstr("known: dog, fish")));
  EXPECT_THAT(failure(json::object()), HasSubstr("pet: got {}, expected an object"));
}

TEST(Registry, ChecksTheOptionsOfAComponent) {
  const auto failure = [](const json& component) {
    return error_of([&] { animals().create(component, "pet", "wau"); });
  };
  EXPECT_EQ(failure({{"name", "dog"}, {"bark", 1}}), "pet.bark: unknown key (value 1); did you mean 'barks'?");
  EXPECT_EQ(failure({{"name", "dog"}, {"barks", 10}}), "pet.barks: got 10, expected an integer from 0 to 9");
  EXPECT_EQ(failure({{"name", "dog"}, {"barks", 4}}), "pet.barks: got 4, expected at most 'most'");
  EXPECT_THAT(failure({{"name", "fish"}, {"barks", 1}}), HasSubstr("pet.barks: unknown key"));
}

TEST(Registry, ResolvesAComponentWithItsDefaults) {
  EXPECT_EQ(animals().resolve({{"name", "dog"}, {"barks", 1}}, "pet"),
            json({{"name", "dog"}, {"barks", 1}, {"most", 3}}));
  EXPECT_THROW(animals().resolve({{"name", "dog"}, {"barks", -1}}, "pet"), ConfigError);
  EXPECT_THROW(animals().resolve({{"name", "dog"}, {"barks", 4}}, "pet"), ConfigError)
      << "rules over several keys count too";
}

TEST(Registry, DescribesItsComponents) {
  EXPECT_EQ(component_kind("animal").entry("dog").summary, "barks");
  EXPECT_EQ(component_kind("animal").describe("dog").at("barks").at("meaning"), "how often it barks");
  EXPECT_EQ(component_kind("animal").describe("fish"), json::object());
}

TEST(Registry, IsFoundByItsKind) {
  EXPECT_EQ(&component_kind("animal"), &animals());
  std::vector<std::string> kinds;
  for (const ComponentKind* kind : component_kinds()) kinds.push_back(kind->kind());
  EXPECT_TRUE(std::is_sorted(kinds.begin(), kinds.end()));
  EXPECT_THAT(kinds, testing::Contains("animal"));
  EXPECT_THAT(error_of([] { component_kind("plant"); }), HasSubstr("no component of kind 'plant'"));
}

TEST(Registry, RefusesASecondComponentOrKindOfOneName) {
  EXPECT_THAT(error_of([] { animals().add<Dog, DogOptions>("dog", "again"); }), HasSubstr("two components"));
  EXPECT_THAT(error_of([] { AnimalRegistry again("animal"); }), HasSubstr("two registries"));
}

TEST(ComponentFields, AreResolvedWhenRead) {
  const ZooOptions zoo = read_zoo({{"others", {{{"name", "fish"}}, {{"name", "dog"}, {"barks", 0}}}}});
  EXPECT_EQ(zoo.star, json({{"name", "dog"}, {"barks", 2}, {"most", 3}})) << "the default component is resolved too";
  EXPECT_EQ(zoo.others, json({{{"name", "fish"}}, {{"name", "dog"}, {"barks", 0}, {"most", 3}}}));
}

TEST(ComponentFields, NameThePathOfWhatIsWrong) {
  const auto failure = [](const json& object) { return error_of([&] { read_zoo(object); }); };
  EXPECT_THAT(failure({{"star", {{"name", "cat"}}}}), HasSubstr("zoo.star.name: there is no animal 'cat'"));
  EXPECT_THAT(failure({{"star", {{"name", "dog"}, {"barks", "x"}}}}), HasSubstr("zoo.star.barks: got \"x\""));
  EXPECT_THAT(failure({{"others", {{{"name", "dog"}}, {{"name", "dogg"}}}}}),
              HasSubstr("zoo.others.1.name: there is no animal 'dogg'"));
  EXPECT_THAT(failure({{"others", {{"name", "dog"}}}}), HasSubstr("expected a list of animals"));
  EXPECT_THAT(error_of([] { read_zoo(json::object(), true); }), HasSubstr("zoo.guest: missing; expected an object"));
}

TEST(ComponentFields, ShowTheirKindInTheSchema) {
  ZooOptions zoo;
  const json schema = describe_fields([&](Fields& f) { zoo.fields(f); });
  EXPECT_EQ(schema.at("star").at("kind"), "animal");
  EXPECT_EQ(schema.at("others").at("kind"), "animal");
}

}  // namespace
}  // namespace fl
