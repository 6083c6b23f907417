#include "fl_core/ml/batches.h"

#include <algorithm>
#include <numeric>

#include "fl_core/ml/resident_model.h"

namespace fl {

Batch BatchBuffer::gather(const Dataset& data, std::span<const std::uint32_t> examples) {
  const std::size_t floats = examples.size() * data.shape().input_size();
  if (inputs_.size() < floats) inputs_.resize(floats);
  labels_.resize(examples.size());
  data.gather(examples, std::span(inputs_).first(floats));
  const auto all_labels = data.labels();
  for (std::size_t i = 0; i < examples.size(); ++i) labels_[i] = all_labels[examples[i]];
  return {std::span<const float>(inputs_).first(floats), labels_};
}

Evaluation evaluate_examples(Model& model, const Dataset& data, std::span<const std::uint32_t> examples,
                             std::size_t batch_size) {
  if (ResidentModel* const resident = model.resident()) return resident->evaluate(data, examples, batch_size);
  BatchBuffer buffer;
  Evaluation sums;
  for (std::size_t start = 0; start < examples.size(); start += batch_size) {
    const auto part = examples.subspan(start, std::min(batch_size, examples.size() - start));
    sums.merge(model.evaluate(buffer.gather(data, part)));
  }
  return sums;
}

std::size_t evaluation_parts(std::size_t examples) { return (examples + kEvaluationBatch - 1) / kEvaluationBatch; }

Evaluation evaluate_part(Model& model, const Dataset& data, std::size_t part) {
  std::vector<std::uint32_t> examples(std::min(kEvaluationBatch, data.size() - part * kEvaluationBatch));
  std::iota(examples.begin(), examples.end(), static_cast<std::uint32_t>(part * kEvaluationBatch));
  return evaluate_examples(model, data, examples, kEvaluationBatch);
}

}  // namespace fl
