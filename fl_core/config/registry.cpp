#include "fl_core/config/registry.h"

#include <nlohmann/json.hpp>

#include "fl_core/config/json_reader.h"

namespace fl {
namespace {

std::map<std::string, const ComponentKind*>& kinds() {
  static std::map<std::string, const ComponentKind*> all;
  return all;
}

}  // namespace

ComponentKind::ComponentKind(std::string kind) : kind_(std::move(kind)) {
  FL_CHECK(kinds().emplace(kind_, this).second, "two registries for the kind '" + kind_ + "'");
}

std::vector<std::string> ComponentKind::names() const {
  std::vector<std::string> names;
  for (const auto& [name, entry] : entries_) names.push_back(name);
  return names;
}

const ComponentKind::Entry& ComponentKind::entry(const std::string& name) const {
  const auto found = entries_.find(name);
  FL_CHECK(found != entries_.end(), "no " + kind_ + " named '" + name + "'");
  return found->second;
}

void ComponentKind::add_entry(const std::string& name, Entry entry) {
  FL_CHECK(entries_.emplace(name, std::move(entry)).second, "two components of kind " + kind_ + " named '" + name + "'");
}

std::string ComponentKind::name_of(const nlohmann::json& component, const std::string& path) const {
  if (!component.is_object() || !component.contains("name")) {
    bad_value(path, component, "an object {\"name\": …} that names a " + kind_ + nearest_hint("", names()));
  }
  const nlohmann::json& name = component.at("name");
  if (!name.is_string()) bad_value(join_path(path, "name"), name, "the name of a " + kind_);
  const auto text = name.get<std::string>();
  if (!has(text)) {
    throw ConfigError(join_path(path, "name") + ": there is no " + kind_ + " '" + text + "'" + nearest_hint(text, names()));
  }
  return text;
}

std::unique_ptr<ComponentKind::AnyOptions> ComponentKind::read(const nlohmann::json& component,
                                                               const std::string& path) const {
  auto options = entry(name_of(component, path)).defaults();
  nlohmann::json keys = component;
  keys.erase("name");
  read_fields(keys, path, [&](Fields& f) { options->fields(f); });
  options->check(path);
  return options;
}

nlohmann::json ComponentKind::resolve(const nlohmann::json& component, const std::string& path) const {
  const auto options = read(component, path);
  nlohmann::json resolved = write_fields([&](Fields& f) { options->fields(f); });
  resolved["name"] = component.at("name");
  return resolved;
}

nlohmann::json ComponentKind::describe(const std::string& name) const {
  const auto options = entry(name).defaults();
  return describe_fields([&](Fields& f) { options->fields(f); });
}

const ComponentKind& component_kind(const std::string& kind) {
  const auto found = kinds().find(kind);
  FL_CHECK(found != kinds().end(), "no component of kind '" + kind + "' is linked into this program");
  return *found->second;
}

std::vector<const ComponentKind*> component_kinds() {
  std::vector<const ComponentKind*> all;
  for (const auto& [name, kind] : kinds()) all.push_back(kind);
  return all;
}

}  // namespace fl
