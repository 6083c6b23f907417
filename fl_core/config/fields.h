#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace fl {

/// Closed or half-open bounds of a number in a configuration. `exclusive_low` means the value must be above `low`.
template <class T>
struct Range {
  T low = std::numeric_limits<T>::lowest();
  T high = std::numeric_limits<T>::max();
  bool exclusive_low = false;
};
using IntegerRange = Range<std::int64_t>;
using NumberRange = Range<double>;

/// One visitor over the keys of an options struct. A struct says once, in `void fields(Fields&)`, what its keys are;
/// reading with strict errors, writing the resolved form with defaults, and printing the schema are three visitors.
/// The value a variable holds before the visit is its default. Every `meaning` is one phrase for the reader of the schema;
/// `unit` is empty for counts and ratios.
class Fields {
 public:
  virtual ~Fields() = default;

  virtual void integer(const char* key, std::int64_t& value, IntegerRange range, const char* meaning,
                       const char* unit = "") = 0;
  virtual void number(const char* key, double& value, NumberRange range, const char* meaning, const char* unit = "") = 0;
  virtual void flag(const char* key, bool& value, const char* meaning) = 0;
  virtual void text(const char* key, std::string& value, const char* meaning) = 0;
  virtual void texts(const char* key, std::vector<std::string>& value, const char* meaning) = 0;
  virtual void choice(const char* key, std::string& value, const std::vector<std::string>& choices,
                      const char* meaning) = 0;
  virtual void optional_integer(const char* key, std::optional<std::int64_t>& value, IntegerRange range,
                                const char* meaning, const char* unit = "") = 0;
  virtual void optional_number(const char* key, std::optional<double>& value, NumberRange range, const char* meaning,
                               const char* unit = "") = 0;
  /// `size` 0 allows any length.
  virtual void numbers(const char* key, std::vector<double>& value, std::size_t size, NumberRange range,
                       const char* meaning, const char* unit = "") = 0;
  virtual void integers(const char* key, std::vector<std::int64_t>& value, std::size_t size, IntegerRange range,
                        const char* meaning) = 0;
  /// A nested object with keys of its own.
  virtual void group(const char* key, const std::function<void(Fields&)>& fields, const char* meaning) = 0;
  /// A nested object that may be null or absent; `present` says whether it is there.
  virtual void optional_group(const char* key, bool& present, const std::function<void(Fields&)>& fields,
                              const char* meaning) = 0;
  /// {"name": …, options…} of one registered component of `kind` (see registry.h).
  virtual void component(const char* key, nlohmann::json& value, const char* kind, const char* meaning) = 0;
  virtual void components(const char* key, nlohmann::json& value, const char* kind, const char* meaning) = 0;
  /// JSON that its consumer validates itself (an architecture's stages). `expected` names its form in the schema.
  virtual void raw(const char* key, nlohmann::json& value, const char* expected, const char* meaning) = 0;
};

/// Reads a JSON object into an options struct. Strict: an unknown key, a wrong type and a number out of range are
/// ConfigErrors with JSON path, value, expectation and, for a key, the nearest known one.
void read_fields(const nlohmann::json& object, const std::string& path, const std::function<void(Fields&)>& fields);

/// The values of an options struct as a JSON object, defaults included.
nlohmann::json write_fields(const std::function<void(Fields&)>& fields);

/// The keys of an options struct as a JSON object: key -> {type, default, range, unit, meaning}.
nlohmann::json describe_fields(const std::function<void(Fields&)>& fields);

}  // namespace fl
