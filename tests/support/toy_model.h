#pragma once

#include <memory>
#include <string>

#include "fl_core/config/experiment.h"
#include "fl_core/ml/model.h"

namespace fl::test {

/// Softmax regression in plain loops, registered as the model "toy_softmax": a real model for tests that must not load
/// LibTorch (sanitizers). Slots: weight [classes, inputs], bias [classes], and one statistic "seen" [1], the share of
/// batches among all calls (so that strategies have a statistic to average).
std::unique_ptr<Model> make_toy_model(const ExampleShape& shape, std::uint64_t seed);

/// A small synthetic federation with the toy model: 20 clients, 4 classes, cohort 5, 4 rounds.
nlohmann::json toy_experiment();

}  // namespace fl::test
