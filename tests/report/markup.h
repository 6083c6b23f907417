#pragma once

#include <algorithm>
#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

/// Checks and lookups on generated markup, strict enough for XML.
namespace fl::test {

inline std::size_t count_of(std::string_view text, std::string_view part) {
  std::size_t count = 0;
  for (auto at = text.find(part); at != std::string_view::npos; at = text.find(part, at + part.size())) ++count;
  return count;
}

/// From `<tag id="id"` (or the first `<tag` if `id` is empty) to the next `</tag>`; "" if there is none.
inline std::string element(const std::string& markup, const std::string& tag, const std::string& id) {
  const auto begin = markup.find("<" + tag + (id.empty() ? "" : " id=\"" + id + "\""));
  if (begin == std::string::npos) return "";
  return markup.substr(begin, markup.find("</" + tag + ">", begin) - begin);
}

/// Reads markup strictly: tags nest and are all closed, attributes are quoted and unique, only the five entities that
/// XML knows, ids are unique, no control characters. Style and script are text like any other.
class MarkupReader {
 public:
  explicit MarkupReader(std::string_view text) : text_(text) {}

  /// "" or the first problem.
  std::string run() {
    const std::string_view doctype = "<!DOCTYPE html>";
    if (text_.starts_with(doctype)) at_ = doctype.size();
    while (problem_.empty() && at_ < text_.size()) {
      if (text_[at_] == '<')
        read_tag();
      else
        read_text(text_.substr(at_, text_.find('<', at_) - at_));
    }
    if (problem_.empty() && !open_.empty()) problem_ = "<" + open_.back() + "> is never closed";
    return problem_;
  }

 private:
  void read_text(std::string_view text) {
    check_characters(text);
    at_ += text.size();
  }

  void check_characters(std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (static_cast<unsigned char>(text[i]) < 0x20 && text[i] != '\n' && text[i] != '\t')
        problem_ = "a control character";
      if (text[i] != '&') continue;
      const std::string_view rest = text.substr(i);
      const auto known = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
      if (std::none_of(known.begin(), known.end(), [&](const char* entity) { return rest.starts_with(entity); })) {
        problem_ = "an unknown entity at " + std::string(rest.substr(0, 30));
      }
    }
  }

  std::string read_name() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[at_])) || text_[at_] == '-')) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  void read_tag() {
    const std::size_t begin = at_++;
    const bool closing = at_ < text_.size() && text_[at_] == '/';
    if (closing) ++at_;
    const std::string name = read_name();
    if (name.empty()) problem_ = "no tag at " + std::string(text_.substr(begin, 30));
    std::set<std::string> attributes;
    while (problem_.empty() && at_ < text_.size() && text_[at_] == ' ') read_attribute(name, attributes);
    if (!problem_.empty()) return;
    const bool empty = text_.substr(at_, 2) == "/>";
    if (!empty && text_.substr(at_, 1) != ">") {
      problem_ = "an attribute of <" + name + "> is not written name=\"value\"";
      return;
    }
    at_ += empty ? 2 : 1;
    if (closing) {
      if (open_.empty() || open_.back() != name)
        problem_ = "</" + name + "> closes " + (open_.empty() ? "nothing" : "<" + open_.back() + ">");
      else
        open_.pop_back();
    } else if (!empty) {
      open_.push_back(name);
    }
  }

  void read_attribute(const std::string& tag, std::set<std::string>& attributes) {
    ++at_;
    const std::string name = read_name();
    const auto end = text_.substr(at_, 2) == "=\"" ? text_.find('"', at_ + 2) : std::string_view::npos;
    if (name.empty() || end == std::string_view::npos) {
      problem_ = "an attribute of <" + tag + "> is not written name=\"value\"";
      return;
    }
    const std::string_view value = text_.substr(at_ + 2, end - at_ - 2);
    at_ = end + 1;
    check_characters(value);
    if (value.find('<') != std::string_view::npos) problem_ = "a raw < in the attribute " + name + " of <" + tag + ">";
    if (!attributes.insert(name).second) problem_ = "the attribute " + name + " stands twice in <" + tag + ">";
    if (name == "id" && !ids_.insert(std::string(value)).second)
      problem_ = "the id " + std::string(value) + " is not unique";
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::vector<std::string> open_;
  std::set<std::string> ids_;
  std::string problem_;
};

inline std::string markup_problem(std::string_view markup) { return MarkupReader(markup).run(); }

}  // namespace fl::test
