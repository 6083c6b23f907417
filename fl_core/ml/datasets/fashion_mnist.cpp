#include "fl_core/base/error.h"
#include "fl_core/ml/datasets/data_file.h"
#include "fl_core/ml/datasets/image_data.h"

namespace fl {
namespace {

struct FashionMnistOptions {
  std::string folder = "/usr/share/datasets/fashion-mnist";
  std::string normalise = "unit";

  void fields(Fields& f) {
    f.text("folder", folder, "folder of the four files (train-images-idx3-ubyte, …), each gz or raw");
    f.choice("normalise", normalise, {"unit", "standard"},
             "unit: pixels / 255; standard: (pixels / 255 - 0.2860) / 0.3530");
  }
};

/// Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60 000 + 10 000 images of 28 × 28, 10 classes.
class FashionMnist final : public DataSource {
 public:
  explicit FashionMnist(const FashionMnistOptions& options) : options_(options) {}

  DataSplits load(std::uint64_t) const override {
    IdxLoading loading;
    loading.classes = 10;
    loading.hint = "install it with 'apt install dataset-fashion-mnist', or set data.folder to where it is";
    if (options_.normalise == "standard") {
      // Mean and deviation of the training pixels / 255, the customary values.
      loading.mean = 0.2860;
      loading.std = 0.3530;
    }
    const auto paths = files();
    return load_idx({paths[0], paths[1]}, {paths[2], paths[3]}, loading);
  }

  std::vector<std::string> files() const override {
    return {file("train-images-idx3-ubyte"), file("train-labels-idx1-ubyte"), file("t10k-images-idx3-ubyte"),
            file("t10k-labels-idx1-ubyte")};
  }

 private:
  std::string file(const std::string& name) const {
    const std::string raw = options_.folder + "/" + name;
    return is_data_file(raw) ? raw : raw + ".gz";
  }

  FashionMnistOptions options_;
};

FL_REGISTER(data_sources(), "fashion_mnist", FashionMnist, FashionMnistOptions,
            "Fashion-MNIST: 60 000 + 10 000 grey images of clothes, 10 classes (Debian: dataset-fashion-mnist)");

}  // namespace
}  // namespace fl
