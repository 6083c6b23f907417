#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fl {

/// The characters of LEAF's Shakespeare task in the order of their token ids (LEAF, models/utils/language_utils.py).
inline constexpr char kLeafLetters[] =
    "\n !\"&'(),-.0123456789:;>?ABCDEFGHIJKLMNOPQRSTUVWXYZ[]abcdefghijklmnopqrstuvwxyz}";
inline constexpr std::size_t kLeafVocabulary = sizeof kLeafLetters - 1;
/// Characters before the one to predict.
inline constexpr std::size_t kLeafSequence = 80;

/// All files of one part of a LEAF data set, one after the other. Either `numbers` (vectors) or `tokens` (texts) is used.
struct LeafPart {
  enum class Kind : std::uint8_t { unknown, vectors, texts } kind = Kind::unknown;
  std::vector<float> numbers;
  std::vector<std::uint8_t> tokens;
  std::vector<std::int32_t> labels;
  std::vector<std::vector<std::uint32_t>> users;  ///< in the order of the files; users without examples are left out
  std::map<std::string, std::string> file_of_user;
};

/// Appends {"users": […], "num_samples": […], "user_data": {user: {"x": […], "y": […]}}} to `part`. A vector must have
/// `input_size` numbers, a text 80 characters. Reads in one pass, without a tree of the document in memory. Throws
/// ConfigError that begins with the path and names user and example.
void read_leaf_file(const std::string& path, std::size_t input_size, LeafPart& part);

}  // namespace fl
