#include "client/net/workbench.h"

#include <algorithm>
#include <new>

#include "fl_core/base/error.h"
#include "fl_core/base/human.h"
#include "fl_core/base/memory.h"
#include "fl_core/base/sha256.h"

namespace fl {
namespace {

/// Arrays of float[N] that a round holds at once: weights, gradient, the task's weights, momentum or another scratch, the encoded update.
constexpr std::uint64_t kModelArrays = 5;

std::string readable(std::uint64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

}  // namespace

std::string described(const ExampleShape& shape) {
  return shape_text(shape) + " in " + std::to_string(shape.classes) + " classes" +
         (shape.vocabulary > 0 ? ", token ids below " + std::to_string(shape.vocabulary) : "");
}

PlanCheck Workbench::prepare(const std::string& text, ClientId client) {
  model_.reset();
  trainer_.reset();
  codec_.reset();
  privacy_.reset();
  client_ = client;
  PlanCheck check;
  try {
    return build(parse_plan(text));
  } catch (const std::bad_alloc&) {
    check.unfit = "the plan's model does not fit into this machine's memory";
  } catch (const Error& error) {
    check.unfit = error.what();
  } catch (const std::exception& error) {
    check.unfit = std::string("the plan's model cannot be built: ") + error.what();
  }
  return check;
}

PlanCheck Workbench::build(const ClientPlan& plan) {
  PlanCheck check;
  const ExampleShape& local = data_.shape;
  if (plan.shape.input != local.input || plan.shape.classes != local.classes || plan.shape.vocabulary != local.vocabulary) {
    check.unfit = "data: the local examples are " + described(local) + ", the server's experiment needs " + described(plan.shape) +
                  "; point 'data' at the experiment's kind of data";
    check.operator_must_act = true;
    return check;
  }
  const auto factory = models().create(plan.model, "model", ModelContext{plan.shape, "model"});
  auto trainer = trainers().create(plan.trainer, "trainer");
  const ModelCost cost = factory->cost();
  const std::uint64_t base = resident_bytes();
  const auto needed = static_cast<std::uint64_t>(std::max<std::int64_t>(0, cost.parameters)) * sizeof(float) * kModelArrays +
                      static_cast<std::uint64_t>(std::max<std::int64_t>(0, cost.activation_bytes)) *
                          static_cast<std::uint64_t>(std::max<std::int64_t>(1, trainer->batch_size()));
  check.memory_bytes = base + needed;
  if (check.memory_bytes > memory_bytes_) {
    check.unfit = "the plan needs about " + readable(check.memory_bytes) + " of memory (" + readable(base) + " for program and data), this client may use " + readable(memory_bytes_);
    return check;
  }
  auto model = factory->make(static_cast<std::uint64_t>(plan.seed));
  check.model_bytes = model->layout()->size() * sizeof(float);
  codec_ = codecs().create(plan.codec, "codec");
  codec_name_ = codecs().name_of(plan.codec, "codec");
  if (plan.privacy) {
    privacy_ = std::make_unique<DevicePrivacy>(*plan.privacy, model->layout()->size(), trainer->private_steps(), keys_);
    const std::string text = plan_text(plan);
    plan_sha256_ = sha256_hex(std::as_bytes(std::span(text)));
    check.promise = privacy_->promise().sentence(privacy_->epsilon());
  }
  check.unfit = privacy_fault();
  if (!check.unfit.empty()) return check;
  model_ = std::move(model);
  trainer_ = std::move(trainer);
  plan_ = plan;
  return check;
}

std::optional<Message> Workbench::answer(const Message& task, const std::function<bool()>& should_stop) {
  FL_CHECK(model_ != nullptr, "a task before a plan");
  const ClientKit kit{*model_,
                      *trainer_,
                      *codec_,
                      codec_name_,
                      *data_.data,
                      static_cast<std::uint64_t>(plan_.seed),
                      plan_.client_holdout,
                      plan_.weighting == "uniform",
                      plan_.weight_cap,
                      privacy_.get()};
  ClientSession session(kit, client_, data_.shard);
  if (privacy_ && task.type() == MessageType::train) return train_privately(task, [&] { return session.handle(task, should_stop); });
  return session.handle(task, should_stop);
}

std::string Workbench::privacy_fault() const {
  if (!privacy_) return demand_.required ? "privacy.required: the server's plan promises no privacy, and this client wants some" : "";
  if (demand_.max_epsilon && !(privacy_->epsilon() <= *demand_.max_epsilon && privacy_->promise().is_private())) {
    return "privacy.max_epsilon: the plan costs " + privacy_->promise().sentence(privacy_->epsilon()) + ", above what this client allows";
  }
  if (privacy_->releases_update() && !keeps_count_) {
    return "state: without a folder this client would forget how often it took part, which the plan's privacy counts on; set one";
  }
  return "";
}

/// Counts what leaves where it costs the owner, and lets no error tell of the examples.
std::optional<Message> Workbench::train_privately(const Message& task, const std::function<std::optional<Message>()>& train) {
  const bool costs = privacy_->releases_update();
  if (costs && log_.used(plan_sha256_) >= privacy_->participations()) {
    return encode_failure(task.round(), "client " + std::to_string(client_) + ": it has taken part " + std::to_string(privacy_->participations()) +
                                            " times, as often as the privacy promise allows");
  }
  std::optional<Message> answer;
  try {
    answer = train();
  } catch (const Interrupted&) {
    throw;
  } catch (const ProtocolError&) {
    throw;
  } catch (const std::exception&) {
    answer.emplace(encode_failure(task.round(), "client " + std::to_string(client_) + ": training failed"));
  }
  if (costs) log_.add(plan_sha256_);
  return answer;
}

}  // namespace fl
