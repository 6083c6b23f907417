#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "fl_core/ml/array_dataset.h"

namespace fl::test {

/// `per_class` examples of each class, classes taking turns; the feature of example i is i. `users` > 0 deals the
/// examples out to that many users, one after the other.
inline std::shared_ptr<const Dataset> labelled_data(std::int32_t classes, std::uint32_t per_class, std::uint32_t users = 0) {
  ExampleShape shape;
  shape.input = {1};
  shape.classes = classes;
  std::vector<float> features;
  std::vector<std::int32_t> labels;
  std::vector<std::vector<std::uint32_t>> owned(users);
  for (std::uint32_t i = 0; i < per_class * static_cast<std::uint32_t>(classes); ++i) {
    features.push_back(static_cast<float>(i));
    labels.push_back(static_cast<std::int32_t>(i) % classes);
    if (users > 0) owned[i % users].push_back(i);
  }
  return std::make_shared<ArrayDataset>("labelled data", shape, std::move(features), std::move(labels), std::move(owned));
}

}  // namespace fl::test
