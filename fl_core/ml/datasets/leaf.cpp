#include <algorithm>
#include <filesystem>
#include <functional>
#include <numeric>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/array_dataset.h"
#include "fl_core/ml/datasets/data_file.h"
#include "fl_core/ml/datasets/leaf_reader.h"

namespace fl {
namespace {

struct LeafOptions {
  std::string folder;
  std::vector<std::int64_t> shape = {1, 28, 28};
  std::optional<std::int64_t> classes;

  void fields(Fields& f) {
    f.text("folder", folder, "folder with train/*.json and test/*.json as LEAF's preprocess.sh makes them");
    f.integers("shape", shape, 0, {1, 1 << 16}, "shape of one example; texts are always [80]");
    f.optional_integer("classes", classes, {1, limits::kClasses},
                       "number of classes; null: the largest label + 1, or 80 for texts");
  }

  void check(const std::string& path) const {
    if (folder.empty()) throw ConfigError(join_path(path, "folder") + ": missing; expected a folder that LEAF made");
    std::int64_t most = std::int64_t{1} << 31;
    for (const std::int64_t extent : shape) most /= extent;
    if (shape.empty() || most < 1) {
      throw ConfigError(join_path(path, "shape") + ": got " + std::to_string(shape.size()) +
                        " axes, expected at least one and a product of at most 2^31");
    }
  }
};

/// Files of one part in the order of their names; empty where the folder is absent.
std::vector<std::string> json_files(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.ends_with(".json") || name.ends_with(".json.gz")) paths.push_back(entry.path().string());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// LEAF (Caldas et al. 2018, arXiv:1812.01097): FEMNIST-like vectors or Shakespeare's 80 characters, with their users.
class Leaf final : public DataSource {
 public:
  explicit Leaf(const LeafOptions& options) : options_(options) {}

  DataSplits load(std::uint64_t) const override {
    LeafPart train = read_part("train");
    LeafPart test = read_part("test");
    if (train.kind != test.kind) throw ConfigError(options_.folder + ": texts and numbers are mixed over its two parts");
    ExampleShape shape;
    if (train.kind == LeafPart::Kind::texts) {
      shape.input = {static_cast<std::int64_t>(kLeafSequence)};
      shape.vocabulary = static_cast<std::int64_t>(kLeafVocabulary);
      shape.classes = options_.classes.value_or(shape.vocabulary);
    } else {
      shape.input = options_.shape;
      const std::int64_t largest = std::max(*std::max_element(train.labels.begin(), train.labels.end()),
                                            *std::max_element(test.labels.begin(), test.labels.end()));
      shape.classes = options_.classes.value_or(largest + 1);
    }
    test.users.clear();
    return {make_dataset("train", shape, std::move(train)), make_dataset("test", shape, std::move(test))};
  }

  std::vector<std::string> files() const override {
    std::vector<std::string> paths = json_files(options_.folder + "/train");
    for (std::string& path : json_files(options_.folder + "/test")) paths.push_back(std::move(path));
    if (paths.empty()) paths.push_back(options_.folder);
    return paths;
  }

 private:
  LeafPart read_part(const std::string& name) const {
    const std::string folder = options_.folder + "/" + name;
    const std::vector<std::string> paths = json_files(folder);
    if (paths.empty()) {
      throw ConfigError(folder + ": no .json file there; make the data with LEAF's preprocess.sh "
                        "(https://github.com/TalwalkarLab/leaf) and name the folder that holds train/ and test/");
    }
    const auto size = std::accumulate(options_.shape.begin(), options_.shape.end(), std::int64_t{1}, std::multiplies<>());
    LeafPart part;
    for (const std::string& path : paths) read_leaf_file(path, static_cast<std::size_t>(size), part);
    if (part.labels.empty()) throw ConfigError(folder + ": its users have no examples");
    return part;
  }

  std::shared_ptr<const Dataset> make_dataset(const std::string& name, const ExampleShape& shape, LeafPart part) const {
    const std::string origin = options_.folder + "/" + name;
    if (part.kind == LeafPart::Kind::vectors) {
      return std::make_shared<ArrayDataset>(origin, shape, std::move(part.numbers), std::move(part.labels),
                                            std::move(part.users));
    }
    // Token ids stay bytes. Bytes that are no token never occur; 0 keeps the table valid as a whole.
    ArrayDataset::ByteFeatures features;
    features.values = std::move(part.tokens);
    features.table.assign(256, 0);
    for (std::size_t id = 0; id < kLeafVocabulary; ++id) features.table[id] = static_cast<float>(id);
    return std::make_shared<ArrayDataset>(origin, shape, std::move(features), std::move(part.labels),
                                          std::move(part.users));
  }

  LeafOptions options_;
};

FL_REGISTER(data_sources(), "leaf", Leaf, LeafOptions,
            "LEAF's JSON format with its natural users: vectors (FEMNIST) or 80-character texts (Shakespeare)");

}  // namespace
}  // namespace fl
