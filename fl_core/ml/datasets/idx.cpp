#include <limits>

#include "fl_core/base/error.h"
#include "fl_core/config/json_reader.h"
#include "fl_core/ml/datasets/data_file.h"
#include "fl_core/ml/datasets/image_data.h"

namespace fl {
namespace {

struct IdxOptions {
  std::string train_images, train_labels, test_images, test_labels;
  std::optional<std::int64_t> classes;
  double mean = 0;
  double std = 1;
  bool transpose = false;

  void fields(Fields& f) {
    f.text("train_images", train_images, "IDX file of the training images, gz or raw");
    f.text("train_labels", train_labels, "IDX file of the training labels, gz or raw");
    f.text("test_images", test_images, "IDX file of the test images, gz or raw");
    f.text("test_labels", test_labels, "IDX file of the test labels, gz or raw");
    f.optional_integer("classes", classes, {1, limits::kClasses}, "number of classes; null: the largest label + 1");
    f.number("mean", mean, {}, "subtracted from pixels / 255");
    f.number("std", std, {0, std::numeric_limits<double>::max(), true}, "divides what is left");
    f.flag("transpose", transpose, "swap rows and columns, as EMNIST needs");
  }

  void check(const std::string& path) const {
    const std::pair<const char*, const std::string*> files[] = {{"train_images", &train_images},
                                                                {"train_labels", &train_labels},
                                                                {"test_images", &test_images},
                                                                {"test_labels", &test_labels}};
    for (const auto& [key, file] : files) {
      if (file->empty()) throw ConfigError(join_path(path, key) + ": missing; expected the path of an IDX file");
    }
  }
};

class Idx final : public DataSource {
 public:
  explicit Idx(const IdxOptions& options) : options_(options) {}

  DataSplits load(std::uint64_t) const override {
    IdxLoading loading;
    loading.classes = options_.classes;
    loading.mean = options_.mean;
    loading.std = options_.std;
    loading.transpose = options_.transpose;
    loading.hint = "expected an IDX file as MNIST and EMNIST have them; correct the path or fetch the file";
    return load_idx({options_.train_images, options_.train_labels}, {options_.test_images, options_.test_labels},
                    loading);
  }

  std::vector<std::string> files() const override {
    return {options_.train_images, options_.train_labels, options_.test_images, options_.test_labels};
  }

 private:
  IdxOptions options_;
};

FL_REGISTER(data_sources(), "idx", Idx, IdxOptions, "any pair of IDX files (MNIST, EMNIST, KMNIST), gz or raw");

}  // namespace
}  // namespace fl
