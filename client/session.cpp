#include "client/session.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "fl_core/base/error.h"
#include "fl_core/ml/batches.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/params/kernels.h"

namespace fl {
namespace {

std::span<const float> weights_of(const Task& task) {
  const auto bytes = task.weights.span();
  return {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)};
}

}  // namespace

std::size_t training_size(std::size_t shard_size, double holdout) {
  const auto held = static_cast<std::size_t>(static_cast<double>(shard_size) * holdout);
  return std::max<std::size_t>(1, shard_size - held);
}

std::uint32_t update_weight(std::size_t examples, std::int64_t cap, bool uniform) {
  if (uniform) return ExactSum::kMaxWeight;
  const auto counted = std::min(static_cast<std::int64_t>(examples), cap);
  if (cap <= static_cast<std::int64_t>(ExactSum::kMaxWeight)) return static_cast<std::uint32_t>(std::max<std::int64_t>(1, counted));
  const double scaled = std::round(static_cast<double>(counted) * ExactSum::kMaxWeight / static_cast<double>(cap));
  return static_cast<std::uint32_t>(std::max(1.0, scaled));
}

ClientSession::ClientSession(const ClientKit& kit, ClientId client, std::vector<std::uint32_t> shard)
    : kit_(kit), client_(client), training_(std::move(shard)) {
  if (kit_.holdout <= 0) return;
  Rng rng(kit_.seed, Purpose::holdout, 0, client_);
  rng.shuffle(training_);
  const auto keep = static_cast<std::ptrdiff_t>(training_size(training_.size(), kit_.holdout));
  held_out_.assign(training_.begin() + keep, training_.end());
  training_.erase(training_.begin() + keep, training_.end());
}

std::optional<Message> ClientSession::handle(const Message& message, const std::function<bool()>& should_stop) {
  if (message.type() == MessageType::secure_step) {
    if (kit_.secure == nullptr) throw ProtocolError("a step of secure aggregation in a run without it");
    return kit_.secure->answer(message);
  }
  const Task task = parse_task(message, *kit_.model.layout());
  return task.kind == TaskKind::train ? train(task, should_stop) : evaluate(task, should_stop);
}

/// Why training failed tells of the examples: under a promise the server learns only that it did.
Message ClientSession::fail(const Task& task, const std::string& reason) const {
  return encode_failure(task.round, "client " + std::to_string(client_) + ": " + (kit_.privacy ? "training failed" : reason));
}

Message ClientSession::train(const Task& task, const std::function<bool()>& should_stop) {
  if (kit_.secure && kit_.secure->masked(task.round)) return kit_.secure->refuse(task);
  const auto global = weights_of(task);
  const auto local = kit_.model.weights();
  std::memcpy(local.data(), global.data(), global.size_bytes());
  TrainingJob job{kit_.model, global, kit_.data, training_, kit_.seed, task.round, client_, should_stop};
  if (kit_.privacy) job.example_noise = kit_.privacy->example_noise(task.round, client_);
  TrainingResult result = kit_.trainer.fit(job);
  // Where the device protects its delta, whether training failed is hidden as well: a failure moves nothing.
  const bool hidden = kit_.privacy && kit_.privacy->changes_delta();
  if (result.diverged && !hidden) {
    return fail(task, "the loss is no longer a finite number after " + std::to_string(result.steps) + " steps; lower trainer.learning_rate or set trainer.clip_norm");
  }
  // The model's own weights are not needed any more: the delta takes their place.
  kernels::subtract(local, global, local);
  if (kit_.privacy) {
    const bool usable = !result.diverged && kernels::all_finite(local);
    if (!usable && !hidden) return fail(task, "");
    if (!usable) std::fill(local.begin(), local.end(), 0.0F);
    kit_.privacy->protect(local, task.round, client_);
    result.metrics = {};
    result.steps = 0;
  }
  const std::uint32_t weight = update_weight(training_.size(), kit_.weight_cap, kit_.uniform_weight || kit_.privacy != nullptr);
  Rng rng(kit_.seed, Purpose::codec, task.round, client_);
  if (kit_.secure) return answer_securely(task, result, weight, rng);
  const UpdateHeader header{task.round,
                            task.model_version,
                            task.fingerprint,
                            weight,
                            result.steps,
                            result.metrics,
                            kit_.codec_name};
  return encode_update(header, SharedBuffer(kit_.codec.encode(local, rng)));
}

/// What would be sent goes into the sum instead: a codec that loses something loses the same.
Message ClientSession::answer_securely(const Task& task, const TrainingResult& result, std::uint32_t weight, Rng& rng) {
  const auto delta = kit_.model.weights();
  const Bytes encoded = kit_.codec.encode(delta, rng);
  if (kit_.codec.view(encoded.span(), delta.size()).empty()) kit_.codec.decode(encoded.span(), delta);
  SecureTotals totals{weight, static_cast<std::uint64_t>(result.metrics.examples), result.steps, static_cast<std::uint64_t>(std::max<std::int64_t>(0, result.metrics.loss_units))};
  return kit_.secure->begin(task, delta, totals);
}

Message ClientSession::evaluate(const Task& task, const std::function<bool()>& should_stop) {
  if (kit_.privacy || kit_.secure) {
    return encode_failure(task.round, "client " + std::to_string(client_) + ": measurements on its examples would break the promise of " + (kit_.privacy ? "privacy" : "secure aggregation"));
  }
  const auto global = weights_of(task);
  std::memcpy(kit_.model.weights().data(), global.data(), global.size_bytes());
  Evaluation sums;
  const std::span<const std::uint32_t> examples(held_out_);
  for (std::size_t start = 0; start < examples.size(); start += kEvaluationBatch) {
    if (should_stop && should_stop()) throw Interrupted("measuring was interrupted");
    const auto batch = examples.subspan(start, std::min(kEvaluationBatch, examples.size() - start));
    sums.merge(evaluate_examples(kit_.model, kit_.data, batch, kEvaluationBatch));
  }
  UpdateHeader header{task.round, task.model_version, task.fingerprint, 1, 0, {}, kit_.codec_name};
  header.metrics.examples = sums.total();
  header.metrics.correct = sums.total_correct();
  header.metrics.loss_units = sums.finite ? sums.loss_units : 0;
  return encode_update(header, SharedBuffer());
}

}  // namespace fl
