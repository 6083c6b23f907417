#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "fl_core/ml/architecture.h"
#include "fl_core/ml/model.h"

namespace fl {

class TorchAccelerator;

/// A model that runs `architecture` on LibTorch, with initial weights from initialise(architecture, seed, …): on the processor, or on an
/// accelerator.
std::unique_ptr<Model> make_architecture_model(std::shared_ptr<const Architecture> architecture, std::uint64_t seed,
                                               std::shared_ptr<TorchAccelerator> accelerator = nullptr);

/// Registers an architecture spec (JSON text with "summary" and "stages") as a model component of that name. Called at
/// static initialisation by the source that the build makes from fl_core/ml/presets/*.json.
bool register_preset(const std::string& name, const std::string& spec);

}  // namespace fl
