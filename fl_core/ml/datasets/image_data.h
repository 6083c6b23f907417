#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fl_core/ml/array_dataset.h"
#include "fl_core/ml/dataset.h"

namespace fl {

/// The table that ArrayDataset turns bytes into features with: (byte / 255 - mean[c]) / std[c] for each channel c.
/// REQUIRES: as many means as deviations, deviations above 0.
std::vector<float> pixel_table(std::span<const double> mean, std::span<const double> std);

/// The two files of one part, in the IDX format of MNIST (http://yann.lecun.com/exdb/mnist): big-endian header, then
/// unsigned bytes.
struct IdxPair {
  std::string images;
  std::string labels;
};

struct IdxLoading {
  std::optional<std::int64_t> classes;  ///< null: the largest label of both parts + 1
  double mean = 0;
  double std = 1;
  bool transpose = false;               ///< swap rows and columns of every image (EMNIST)
  std::string hint;                     ///< how to get a file that is absent
};

/// Images of 2 to 4 axes (the first counts examples): [n, rows, columns] becomes [1, rows, columns], others stay.
DataSplits load_idx(const IdxPair& train, const IdxPair& test, const IdxLoading& loading);

}  // namespace fl
