#include "fl_core/ml/datasets/leaf_reader.h"

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/datasets/data_file.h"

namespace fl {
namespace {

using nlohmann::json;

constexpr std::size_t kDepthLimit = 64;

/// Follows the document as the parser meets it. `stack_` says which part of the format each open bracket belongs to.
class LeafHandler final : public nlohmann::json_sax<json> {
 public:
  LeafHandler(const std::string& path, std::size_t input_size, LeafPart& part)
      : path_(path), input_size_(input_size), part_(part) {}

  bool null() override { return value("null"); }
  bool boolean(bool given) override { return value(given ? "true" : "false"); }
  bool number_integer(number_integer_t given) override { return number(static_cast<double>(given)); }
  bool number_unsigned(number_unsigned_t given) override { return number(static_cast<double>(given)); }
  bool number_float(number_float_t given, const string_t&) override { return number(given); }
  bool binary(binary_t&) override { return value("binary data"); }

  bool string(string_t& given) override {
    switch (place()) {
      case Place::user_names: names_.push_back(given); return true;
      case Place::inputs: add_text(given); return true;
      case Place::labels: add_letter(given); return true;
      default: return value(shown(given));
    }
  }

  bool start_object(std::size_t) override {
    if (stack_.empty()) return open(Place::document);
    if (place() == Place::document && key_ == "user_data") return open(Place::all_users);
    if (place() == Place::all_users) {
      begin_user();
      return open(Place::user);
    }
    return open_other("an object");
  }

  bool start_array(std::size_t) override {
    if (place() == Place::document && key_ == "users") return open(Place::user_names);
    if (place() == Place::document && key_ == "num_samples") return open(Place::counts);
    if (place() == Place::user && (key_ == "x" || key_ == "y")) {
      bool& seen = key_ == "x" ? has_x_ : has_y_;
      if (std::exchange(seen, true)) fail("the key '" + key_ + "' appears twice");
      return open(key_ == "x" ? Place::inputs : Place::labels);
    }
    if (place() == Place::inputs) {
      be(LeafPart::Kind::vectors);
      row_size_ = 0;
      return open(Place::vector);
    }
    return open_other("a list");
  }

  bool key(string_t& given) override {
    key_ = given;
    return true;
  }

  bool end_object() override {
    if (place() == Place::user) end_user();
    stack_.pop_back();
    return true;
  }

  bool end_array() override {
    if (place() == Place::vector) {
      if (row_size_ != input_size_) {
        fail("has " + std::to_string(row_size_) + " numbers, expected " + std::to_string(input_size_) +
             " (the product of the option 'shape')");
      }
      ++inputs_;
    }
    stack_.pop_back();
    return true;
  }

  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    throw ConfigError(path_ + ": not valid JSON at byte " + std::to_string(position) + " (" + error.what() +
                      "); make the file again");
  }

  /// What can be said only after the whole document: its lists of users and counts agree with its data.
  void finish() {
    if (!has_data_) throw ConfigError(path_ + ": has no 'user_data'; expected a LEAF file");
    if (names_.size() != counts_.size() || names_.size() != sizes_.size()) {
      throw ConfigError(path_ + ": lists " + std::to_string(names_.size()) + " users, " +
                        std::to_string(counts_.size()) + " counts in num_samples and " + std::to_string(sizes_.size()) +
                        " users in user_data, expected equal numbers");
    }
    for (std::size_t i = 0; i < names_.size(); ++i) {
      const auto found = sizes_.find(names_[i]);
      if (found == sizes_.end()) throw ConfigError(path_ + ": user_data lacks the user " + shown(names_[i]));
      if (static_cast<double>(found->second) != counts_[i]) {
        throw ConfigError(path_ + ": num_samples of the user " + shown(names_[i]) + " is " + shown(counts_[i]) +
                          ", but the user has " + std::to_string(found->second) + " examples");
      }
    }
  }

 private:
  enum class Place : std::uint8_t { outside, document, user_names, counts, all_users, user, inputs, vector, labels, other };

  Place place() const { return stack_.empty() ? Place::outside : stack_.back(); }

  bool open(Place place) {
    if (stack_.size() >= kDepthLimit) fail("nested deeper than " + std::to_string(kDepthLimit) + " levels");
    has_data_ = has_data_ || place == Place::all_users;
    stack_.push_back(place);
    return true;
  }

  /// Keys that other LEAF tasks add ("hierarchies", "raw") are skipped; anything else out of place is an error.
  bool open_other(const std::string& found) {
    if (skips_here()) return open(Place::other);
    fail("got " + found + ", which does not belong there");
  }

  bool skips_here() const {
    if (place() == Place::other) return true;
    if (place() == Place::document) return key_ != "users" && key_ != "num_samples" && key_ != "user_data";
    return place() == Place::user && key_ != "x" && key_ != "y";
  }

  bool value(const std::string& found) {
    if (skips_here()) return true;
    fail("got " + found + ", which does not belong there");
  }

  bool number(double given) {
    switch (place()) {
      case Place::counts: counts_.push_back(given); return true;
      case Place::vector:
        if (!std::isfinite(static_cast<float>(given))) fail("got " + shown(given) + ", expected a finite number");
        if (++row_size_ <= input_size_) part_.numbers.push_back(static_cast<float>(given));
        return true;
      case Place::labels:
        be(LeafPart::Kind::vectors);
        if (!(given >= 0 && given < static_cast<double>(limits::kClasses)) || given != std::floor(given)) {
          fail("got the label " + shown(given) + ", expected an integer from 0");
        }
        part_.labels.push_back(static_cast<std::int32_t>(given));
        return true;
      default: return value(shown(given));
    }
  }

  std::uint8_t token(char letter) {
    static const auto table = [] {
      std::array<std::int16_t, 256> ids;
      ids.fill(-1);
      for (std::size_t i = 0; i < kLeafVocabulary; ++i) {
        ids[static_cast<std::uint8_t>(kLeafLetters[i])] = static_cast<std::int16_t>(i);
      }
      return ids;
    }();
    const std::int16_t id = table[static_cast<std::uint8_t>(letter)];
    if (id < 0) fail("has the character " + shown(std::string(1, letter)) + ", which is not among LEAF's 80");
    return static_cast<std::uint8_t>(id);
  }

  void add_text(const std::string& text) {
    be(LeafPart::Kind::texts);
    if (text.size() != kLeafSequence) {
      fail("is a text of " + std::to_string(text.size()) + " bytes, expected " + std::to_string(kLeafSequence) +
           " characters (Shakespeare) or a list of numbers");
    }
    for (const char letter : text) part_.tokens.push_back(token(letter));
    ++inputs_;
  }

  void add_letter(const std::string& text) {
    be(LeafPart::Kind::texts);
    if (text.size() != 1) fail("got the label " + shown(text) + ", expected one character or an integer");
    part_.labels.push_back(token(text[0]));
  }

  void be(LeafPart::Kind kind) {
    if (part_.kind == LeafPart::Kind::unknown) part_.kind = kind;
    if (part_.kind != kind) fail("texts and numbers are mixed");
  }

  void begin_user() {
    const auto [known, fresh] = part_.file_of_user.emplace(key_, path_);
    if (!fresh) throw ConfigError(path_ + ": the user " + shown(key_) + " was already in " + known->second);
    user_ = key_;
    first_ = part_.labels.size();
    inputs_ = 0;
    has_x_ = has_y_ = false;
  }

  void end_user() {
    const std::size_t labels = part_.labels.size() - first_;
    if (inputs_ != labels) {
      throw ConfigError(path_ + ": the user " + shown(user_) + " has " + std::to_string(inputs_) + " inputs in x and " +
                        std::to_string(labels) + " labels in y");
    }
    if (part_.labels.size() > 0xffffffffU) throw ConfigError(path_ + ": more than 2^32 examples");
    sizes_[user_] = labels;
    if (labels == 0) return;
    std::vector<std::uint32_t>& examples = part_.users.emplace_back();
    for (std::size_t i = first_; i < part_.labels.size(); ++i) examples.push_back(static_cast<std::uint32_t>(i));
  }

  [[noreturn]] void fail(const std::string& message) const {
    std::string where;
    for (const Place place : stack_) {
      if (place == Place::all_users) where += "user_data";
      if (place == Place::user) where += "." + user_;
      if (place == Place::inputs) where += ".x[" + std::to_string(inputs_) + "]";
      if (place == Place::labels) where += ".y[" + std::to_string(part_.labels.size() - first_) + "]";
    }
    if (place() == Place::document) where += key_;
    if (place() == Place::user) where += "." + key_;
    if (place() == Place::user_names) where += "users";
    if (place() == Place::counts) where += "num_samples";
    throw ConfigError(path_ + ": " + (where.empty() ? "" : where + ": ") + message);
  }

  const std::string& path_;
  std::size_t input_size_;
  LeafPart& part_;
  std::vector<Place> stack_;
  std::string key_, user_;
  std::vector<std::string> names_;
  std::vector<double> counts_;
  std::map<std::string, std::size_t> sizes_;
  std::size_t first_ = 0;     ///< index of the user's first example
  std::size_t inputs_ = 0;    ///< inputs of the user so far
  std::size_t row_size_ = 0;  ///< numbers of the vector so far
  bool has_x_ = false, has_y_ = false, has_data_ = false;
};

}  // namespace

void read_leaf_file(const std::string& path, std::size_t input_size, LeafPart& part) {
  const std::string text = DataFile(path, "expected a LEAF file").text();
  LeafHandler handler(path, input_size, part);
  json::sax_parse(text, &handler);
  handler.finish();
}

}  // namespace fl
