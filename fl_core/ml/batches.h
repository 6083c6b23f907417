#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "fl_core/ml/dataset.h"
#include "fl_core/ml/model.h"

namespace fl {

/// Examples a forward pass of an evaluation holds at once. Part of the result's bits: never derived from the machine.
inline constexpr std::size_t kEvaluationBatch = 250;

/// Gathers examples into arrays that are reused from batch to batch.
class BatchBuffer {
 public:
  /// The returned batch is valid until the next call.
  Batch gather(const Dataset& data, std::span<const std::uint32_t> examples);

 private:
  std::vector<float> inputs_;
  std::vector<std::int64_t> labels_;
};

/// Evaluates `model` on `examples` in batches of `batch_size`. The sums do not depend on the batch size's remainder order;
/// the bits of each example's loss may depend on batch_size itself, so callers fix it.
Evaluation evaluate_examples(Model& model, const Dataset& data, std::span<const std::uint32_t> examples,
                             std::size_t batch_size);

/// A test set falls into parts of kEvaluationBatch examples that any thread may take; merged, they give the same sums.
std::size_t evaluation_parts(std::size_t examples);
Evaluation evaluate_part(Model& model, const Dataset& data, std::size_t part);

}  // namespace fl
