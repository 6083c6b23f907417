#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/config/fields.h"

namespace fl {

/// The part of a registry that does not depend on what its components construct: names, options and their schema.
/// A component is written in JSON as {"name": "fedavg", …its options…}.
class ComponentKind {
 public:
  /// The options of one component, whatever their type.
  class AnyOptions {
   public:
    virtual ~AnyOptions() = default;
    virtual void fields(Fields& f) = 0;
    /// Rules that concern several keys; throws ConfigError.
    virtual void check(const std::string& path) const = 0;
  };
  struct Entry {
    std::string summary;                                    ///< one sentence for `fl config --schema`
    std::function<std::unique_ptr<AnyOptions>()> defaults;  ///< a fresh options object
  };

  explicit ComponentKind(std::string kind);
  ComponentKind(const ComponentKind&) = delete;
  ComponentKind& operator=(const ComponentKind&) = delete;

  const std::string& kind() const { return kind_; }
  std::vector<std::string> names() const;
  const Entry& entry(const std::string& name) const;
  bool has(const std::string& name) const { return entries_.count(name) != 0; }
  /// The schema of a component's options: key -> {type, default, unit, meaning}.
  nlohmann::json describe(const std::string& name) const;

  /// The component with every default filled in, "name" first. Throws ConfigError with path and nearest name.
  nlohmann::json resolve(const nlohmann::json& component, const std::string& path) const;
  /// The "name" of a component, checked to be registered. Throws ConfigError with path and nearest name.
  std::string name_of(const nlohmann::json& component, const std::string& path) const;

 protected:
  void add_entry(const std::string& name, Entry entry);
  /// The validated options of a component.
  std::unique_ptr<AnyOptions> read(const nlohmann::json& component, const std::string& path) const;

 private:
  std::string kind_;
  std::map<std::string, Entry> entries_;
};

/// The registry of a kind by its name ("strategy", "codec", …). Throws Error if no linked code registers that kind.
const ComponentKind& component_kind(const std::string& kind);
/// All kinds that the program links, sorted by name.
std::vector<const ComponentKind*> component_kinds();

/// Maps names to factories of T. `Args` is what every component of this kind gets besides its options.
template <class T, class... Args>
class Registry : public ComponentKind {
 public:
  using ComponentKind::ComponentKind;

  /// Registers Class, constructed as Class(Options, Args...). Called through FL_REGISTER at static initialisation.
  template <class Class, class Options>
  bool add(const std::string& name, const std::string& summary) {
    return add_factory<Options>(name, summary, [](const Options& options, Args... args) -> std::unique_ptr<T> {
      return std::make_unique<Class>(options, std::forward<Args>(args)...);
    });
  }

  /// Registers factory(const Options&, Args...) -> std::unique_ptr<T>.
  template <class Options, class Factory>
  bool add_factory(const std::string& name, const std::string& summary, Factory factory) {
    add_entry(name, {summary, [] { return std::make_unique<TypedOptions<Options>>(); }});
    factories_[name] = [factory](const AnyOptions& options, Args... args) -> std::unique_ptr<T> {
      return factory(static_cast<const TypedOptions<Options>&>(options).value, std::forward<Args>(args)...);
    };
    return true;
  }

  /// Builds the component. `path` is its JSON path, for errors.
  std::unique_ptr<T> create(const nlohmann::json& component, const std::string& path, Args... args) const {
    const auto options = read(component, path);
    return factories_.at(name_of(component, path))(*options, std::forward<Args>(args)...);
  }

 private:
  template <class Options>
  struct TypedOptions final : AnyOptions {
    Options value;
    void fields(Fields& f) override { value.fields(f); }
    void check(const std::string& path) const override {
      if constexpr (requires { value.check(path); }) value.check(path);
    }
  };

  std::map<std::string, std::function<std::unique_ptr<T>(const AnyOptions&, Args...)>> factories_;
};

/// An options struct without keys. Any options struct has `void fields(Fields&)`, and may have
/// `void check(const std::string& path) const` for rules that concern several keys.
struct NoOptions {
  void fields(Fields&) {}
};

/// Puts a component into a registry: FL_REGISTER(strategies(), "fedavg", FedAvg, FedAvgOptions, "one sentence").
#define FL_REGISTER(registry, name, Class, Options, summary) \
  [[maybe_unused]] static const bool fl_registered_##Class = (registry).add<Class, Options>(name, summary)

}  // namespace fl
