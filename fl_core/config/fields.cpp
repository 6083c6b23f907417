#include "fl_core/config/fields.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/config/registry.h"

namespace fl {
namespace {

using nlohmann::json;

template <class T>
std::string number_text(T value) {
  return json(value).dump();
}

/// "an integer from 1 to 10", "a number above 0", …
template <class T>
std::string expectation(const char* noun, const Range<T>& range) {
  const bool has_low = range.low != std::numeric_limits<T>::lowest();
  const bool has_high = range.high != std::numeric_limits<T>::max();
  std::string text = noun;
  if (has_low && has_high && !range.exclusive_low) return text + " from " + number_text(range.low) + " to " + number_text(range.high);
  if (has_low) text += range.exclusive_low ? " above " + number_text(range.low) : " of at least " + number_text(range.low);
  if (has_high) text += std::string(has_low ? " and" : "") + " of at most " + number_text(range.high);
  return text;
}

template <class T>
bool inside(T value, const Range<T>& range) {
  return (range.exclusive_low ? value > range.low : value >= range.low) && value <= range.high;
}

std::int64_t checked_integer(const json& value, const std::string& path, const IntegerRange& range) {
  const std::string expected = expectation("an integer", range);
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > std::uint64_t{INT64_MAX}) bad_value(path, value, expected);
  if (!value.is_number_integer()) bad_value(path, value, expected);
  const auto number = value.get<std::int64_t>();
  if (!inside(number, range)) bad_value(path, value, expected);
  return number;
}

double checked_number(const json& value, const std::string& path, const NumberRange& range) {
  const std::string expected = expectation("a number", range);
  if (!value.is_number()) bad_value(path, value, expected);
  const auto number = value.get<double>();
  if (!std::isfinite(number) || !inside(number, range)) bad_value(path, value, expected);
  return number;
}

class ReadFields final : public Fields {
 public:
  ReadFields(const json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) bad_value(path_.empty() ? "the document" : path_, object_, "an object {…}");
  }

  /// Everything in the object must have been asked for.
  void finish() const {
    for (const auto& [key, value] : object_.items()) {
      if (std::find(known_.begin(), known_.end(), key) == known_.end()) {
        throw ConfigError(join_path(path_, key) + ": unknown key (value " + shown(value) + ")" + nearest_hint(key, known_));
      }
    }
  }

  void integer(const char* key, std::int64_t& value, IntegerRange range, const char*, const char*) override {
    if (const json* found = find(key)) value = checked_integer(*found, at(key), range);
  }
  void number(const char* key, double& value, NumberRange range, const char*, const char*) override {
    if (const json* found = find(key)) value = checked_number(*found, at(key), range);
  }
  void flag(const char* key, bool& value, const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_boolean()) bad_value(at(key), *found, "true or false");
    value = found->get<bool>();
  }
  void text(const char* key, std::string& value, const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    if (!found->is_string()) bad_value(at(key), *found, "a text in quotes");
    value = found->get<std::string>();
  }
  void choice(const char* key, std::string& value, const std::vector<std::string>& choices, const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    if (found->is_string()) value = found->get<std::string>();
    if (!found->is_string() || std::find(choices.begin(), choices.end(), value) == choices.end()) {
      std::string list;
      for (const std::string& one : choices) list += (list.empty() ? "\"" : ", \"") + one + "\"";
      throw ConfigError(at(key) + ": got " + shown(*found) + ", expected one of " + list +
                        (found->is_string() ? nearest_hint(found->get<std::string>(), choices) : ""));
    }
  }
  void optional_integer(const char* key, std::optional<std::int64_t>& value, IntegerRange range, const char*,
                        const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    value.reset();
    if (!found->is_null()) value = checked_integer(*found, at(key), range);
  }
  void optional_number(const char* key, std::optional<double>& value, NumberRange range, const char*,
                       const char*) override {
    const json* found = find(key);
    if (found == nullptr) return;
    value.reset();
    if (!found->is_null()) value = checked_number(*found, at(key), range);
  }
  void numbers(const char* key, std::vector<double>& value, std::size_t size, NumberRange range, const char*,
               const char*) override {
    read_list(key, value, size, "numbers",
              [&](const json& one, const std::string& path) { return checked_number(one, path, range); });
  }
  void integers(const char* key, std::vector<std::int64_t>& value, std::size_t size, IntegerRange range,
                const char*) override {
    read_list(key, value, size, "integers",
              [&](const json& one, const std::string& path) { return checked_integer(one, path, range); });
  }
  void texts(const char* key, std::vector<std::string>& value, const char*) override {
    read_list(key, value, 0, "texts", [](const json& one, const std::string& path) {
      if (!one.is_string()) bad_value(path, one, "a text");
      return one.get<std::string>();
    });
  }
  void group(const char* key, const std::function<void(Fields&)>& fields, const char*) override {
    const json* found = find(key);
    read_fields(found == nullptr ? json::object() : *found, at(key), fields);
  }
  void optional_group(const char* key, bool& present, const std::function<void(Fields&)>& fields, const char*) override {
    const json* found = find(key);
    if (found != nullptr) present = !found->is_null();
    if (present) read_fields(found == nullptr ? json::object() : *found, at(key), fields);
  }
  void component(const char* key, json& value, const char* kind, const char*) override {
    if (const json* found = find(key)) value = *found;
    if (value.is_null()) throw ConfigError(at(key) + ": missing; expected an object {\"name\": …} that names a " + kind);
    value = component_kind(kind).resolve(value, at(key));
  }
  void components(const char* key, json& value, const char* kind, const char*) override {
    if (const json* found = find(key)) value = *found;
    if (!value.is_array()) bad_value(at(key), value, std::string("a list of ") + kind + "s [{\"name\": …}, …]");
    for (std::size_t i = 0; i < value.size(); ++i) {
      value[i] = component_kind(kind).resolve(value[i], join_path(at(key), std::to_string(i)));
    }
  }
  void raw(const char* key, json& value, const char*, const char*) override {
    if (const json* found = find(key)) value = *found;
  }

 private:
  const json* find(const char* key) {
    known_.emplace_back(key);
    const auto found = object_.find(key);
    return found == object_.end() ? nullptr : &*found;
  }
  std::string at(const char* key) const { return join_path(path_, key); }

  template <class T, class One>
  void read_list(const char* key, std::vector<T>& value, std::size_t size, const char* noun, One one) {
    const json* found = find(key);
    if (found == nullptr) return;
    const std::string expected = std::string("a list of ") + (size == 0 ? "" : std::to_string(size) + " ") + noun;
    if (!found->is_array() || (size != 0 && found->size() != size)) bad_value(at(key), *found, expected);
    value.clear();
    for (std::size_t i = 0; i < found->size(); ++i) {
      value.push_back(one((*found)[i], join_path(at(key), std::to_string(i))));
    }
  }

  const json& object_;
  std::string path_;
  std::vector<std::string> known_;
};

class WriteFields final : public Fields {
 public:
  json out = json::object();

  void integer(const char* key, std::int64_t& value, IntegerRange, const char*, const char*) override { out[key] = value; }
  void number(const char* key, double& value, NumberRange, const char*, const char*) override { out[key] = value; }
  void flag(const char* key, bool& value, const char*) override { out[key] = value; }
  void text(const char* key, std::string& value, const char*) override { out[key] = value; }
  void texts(const char* key, std::vector<std::string>& value, const char*) override { out[key] = value; }
  void choice(const char* key, std::string& value, const std::vector<std::string>&, const char*) override { out[key] = value; }
  void optional_integer(const char* key, std::optional<std::int64_t>& value, IntegerRange, const char*, const char*) override {
    out[key] = value ? json(*value) : json(nullptr);
  }
  void optional_number(const char* key, std::optional<double>& value, NumberRange, const char*, const char*) override {
    out[key] = value ? json(*value) : json(nullptr);
  }
  void numbers(const char* key, std::vector<double>& value, std::size_t, NumberRange, const char*, const char*) override {
    out[key] = value;
  }
  void integers(const char* key, std::vector<std::int64_t>& value, std::size_t, IntegerRange, const char*) override {
    out[key] = value;
  }
  void group(const char* key, const std::function<void(Fields&)>& fields, const char*) override {
    out[key] = write_fields(fields);
  }
  void optional_group(const char* key, bool& present, const std::function<void(Fields&)>& fields, const char*) override {
    out[key] = present ? write_fields(fields) : json(nullptr);
  }
  void component(const char* key, json& value, const char*, const char*) override { out[key] = value; }
  void components(const char* key, json& value, const char*, const char*) override { out[key] = value; }
  void raw(const char* key, json& value, const char*, const char*) override { out[key] = value; }
};

class DescribeFields final : public Fields {
 public:
  json out = json::object();

  void integer(const char* key, std::int64_t& value, IntegerRange range, const char* meaning, const char* unit) override {
    describe(key, expectation("an integer", range), value, meaning, unit);
  }
  void number(const char* key, double& value, NumberRange range, const char* meaning, const char* unit) override {
    describe(key, expectation("a number", range), value, meaning, unit);
  }
  void flag(const char* key, bool& value, const char* meaning) override { describe(key, "true or false", value, meaning, ""); }
  void text(const char* key, std::string& value, const char* meaning) override { describe(key, "a text", value, meaning, ""); }
  void texts(const char* key, std::vector<std::string>& value, const char* meaning) override {
    describe(key, "a list of texts", value, meaning, "");
  }
  void choice(const char* key, std::string& value, const std::vector<std::string>& choices, const char* meaning) override {
    std::string list = "one of";
    for (const std::string& one : choices) list += " " + one;
    describe(key, list, value, meaning, "");
  }
  void optional_integer(const char* key, std::optional<std::int64_t>& value, IntegerRange range, const char* meaning,
                        const char* unit) override {
    describe(key, expectation("an integer", range) + ", or null", value ? json(*value) : json(nullptr), meaning, unit);
  }
  void optional_number(const char* key, std::optional<double>& value, NumberRange range, const char* meaning,
                       const char* unit) override {
    describe(key, expectation("a number", range) + ", or null", value ? json(*value) : json(nullptr), meaning, unit);
  }
  void numbers(const char* key, std::vector<double>& value, std::size_t, NumberRange range, const char* meaning,
               const char* unit) override {
    describe(key, "a list of " + expectation("numbers", range), value, meaning, unit);
  }
  void integers(const char* key, std::vector<std::int64_t>& value, std::size_t, IntegerRange range,
                const char* meaning) override {
    describe(key, "a list of " + expectation("integers", range), value, meaning, "");
  }
  void group(const char* key, const std::function<void(Fields&)>& fields, const char* meaning) override {
    out[key] = {{"type", "an object"}, {"meaning", meaning}, {"keys", describe_fields(fields)}};
  }
  void optional_group(const char* key, bool& present, const std::function<void(Fields&)>& fields, const char* meaning) override {
    out[key] = {{"type", "an object, or null"}, {"meaning", meaning}, {"keys", describe_fields(fields)}};
    if (!present) out[key]["default"] = nullptr;
  }
  void component(const char* key, json& value, const char* kind, const char* meaning) override {
    describe(key, std::string("a ") + kind + " {\"name\": …}", value, meaning, "");
    out[key]["kind"] = kind;
  }
  void components(const char* key, json& value, const char* kind, const char* meaning) override {
    describe(key, std::string("a list of ") + kind + "s", value, meaning, "");
    out[key]["kind"] = kind;
  }
  void raw(const char* key, json& value, const char* expected, const char* meaning) override {
    describe(key, expected, value, meaning, "");
  }

 private:
  void describe(const char* key, const std::string& type, const json& value, const char* meaning, const char* unit) {
    out[key] = {{"type", type}, {"default", value}, {"meaning", meaning}};
    if (*unit != '\0') out[key]["unit"] = unit;
  }
};

}  // namespace

void read_fields(const json& object, const std::string& path, const std::function<void(Fields&)>& fields) {
  ReadFields reader(object, path);
  fields(reader);
  reader.finish();
}

json write_fields(const std::function<void(Fields&)>& fields) {
  WriteFields writer;
  fields(writer);
  return writer.out;
}

json describe_fields(const std::function<void(Fields&)>& fields) {
  DescribeFields describer;
  fields(describer);
  return describer.out;
}

}  // namespace fl
