#include "client/net/workbench.h"

#include <algorithm>
#include <new>

#include "fl_core/base/error.h"
#include "fl_core/base/human.h"
#include "fl_core/base/memory.h"
#include "fl_core/base/sha256.h"
#include "privacy/secagg/primitives.h"

namespace fl {
namespace {

/// Arrays of float[N] that a round holds at once: weights, gradient, the task's weights, momentum or another scratch, the encoded update.
constexpr std::uint64_t kModelArrays = 5;

/// The longest message of secure aggregation to one client: everybody's credential, roster entry, advert and shares.
std::uint64_t largest_step_bytes(std::uint64_t clients) { return 4096 + clients * (kCredentialBytes + 512); }

std::string readable(std::uint64_t bytes) { return human_bytes(static_cast<double>(bytes)); }

}  // namespace

std::string described(const ExampleShape& shape) {
  return shape_text(shape) + " in " + std::to_string(shape.classes) + " classes" +
         (shape.vocabulary > 0 ? ", token ids below " + std::to_string(shape.vocabulary) : "");
}

PlanCheck Workbench::prepare(const std::string& text, const std::string& run, ClientId client) {
  model_.reset();
  trainer_.reset();
  codec_.reset();
  privacy_.reset();
  secure_.reset();
  run_ = run;
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
  const ExampleShape& local = parts_.data.shape;
  if (plan.shape.input != local.input || plan.shape.classes != local.classes || plan.shape.vocabulary != local.vocabulary) {
    check.unfit = "data: the local examples are " + described(local) + ", the server's experiment needs " + described(plan.shape) +
                  "; point 'data' at the experiment's kind of data";
    check.operator_must_act = true;
    return check;
  }
  const auto factory = models().create(plan.model, "model", ModelContext{plan.shape, "model"});
  auto trainer = trainers().create(plan.trainer, "trainer");
  parts_.devices->require(trainer->runs_on_accelerators(), "trainer.name", trainers().name_of(plan.trainer, "trainer"));
  const ModelCost cost = factory->cost();
  const std::uint64_t base = resident_bytes();
  const auto needed = static_cast<std::uint64_t>(std::max<std::int64_t>(0, cost.parameters)) * sizeof(float) * kModelArrays +
                      static_cast<std::uint64_t>(std::max<std::int64_t>(0, cost.activation_bytes)) *
                          static_cast<std::uint64_t>(std::max<std::int64_t>(1, trainer->batch_size()));
  check.memory_bytes = base + needed;
  if (check.memory_bytes > parts_.memory_bytes) {
    check.unfit = "the plan needs about " + readable(check.memory_bytes) + " of memory (" + readable(base) + " for program and data), this client may use " + readable(parts_.memory_bytes);
    return check;
  }
  parts_.devices->start_with(0);
  auto model = parts_.devices->make_model(*factory, static_cast<std::uint64_t>(plan.seed));
  check.max_task_bytes = model->layout()->size() * sizeof(float);
  codec_ = codecs().create(plan.codec, "codec");
  codec_name_ = codecs().name_of(plan.codec, "codec");
  if (plan.privacy) {
    privacy_ = std::make_unique<DevicePrivacy>(*plan.privacy, model->layout()->size(), trainer->private_steps(), parts_.keys, plan.secure_aggregation.has_value());
    const std::string text = plan_text(plan);
    plan_sha256_ = sha256_hex(std::as_bytes(std::span(text)));
    check.promise = privacy_->promise().sentence(privacy_->epsilon());
  }
  check.unfit = privacy_fault();
  if (check.unfit.empty()) check.unfit = prepare_secure_aggregation(plan, model->layout()->size());
  if (!check.unfit.empty()) return check;
  if (plan.secure_aggregation) check.max_task_bytes = std::max(check.max_task_bytes, largest_step_bytes(static_cast<std::uint64_t>(plan.secure_aggregation->max_cohort)));
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
                      *parts_.data.data,
                      static_cast<std::uint64_t>(plan_.seed),
                      plan_.client_holdout,
                      plan_.weighting == "uniform",
                      plan_.weight_cap,
                      privacy_.get(),
                      secure_.get()};
  ClientSession session(kit, client_, parts_.data.shard);
  if (privacy_ && task.type() == MessageType::train) return train_privately(task, [&] { return session.handle(task, should_stop); });
  return session.handle(task, should_stop);
}

std::string Workbench::privacy_fault() const {
  if (!privacy_) return parts_.privacy.required ? "privacy.required: the server's plan promises no privacy, and this client wants some" : "";
  if (parts_.privacy.max_epsilon && !(privacy_->epsilon() <= *parts_.privacy.max_epsilon && privacy_->promise().is_private())) {
    return "privacy.max_epsilon: the plan costs " + privacy_->promise().sentence(privacy_->epsilon()) + ", above what this client allows";
  }
  if (privacy_->releases_update() && parts_.participations.empty()) {
    return "state: without a folder this client would forget how often it took part, which the plan's privacy counts on; set one";
  }
  return "";
}

std::string Workbench::prepare_secure_aggregation(const ClientPlan& plan, std::uint64_t parameters) {
  const SecureAggregationDemand& demand = parts_.secure_aggregation;
  if (!plan.secure_aggregation) {
    return demand.required ? "secure_aggregation.required: the server's plan would show it this client's updates, and the owner wants them to be summed unseen" : "";
  }
  const Promise* promise = privacy_ ? &privacy_->promise() : nullptr;
  const std::uint32_t weight = plan.weighting == "uniform" ? ExactSum::kMaxWeight : 0;
  const SecureVector vector = secure_vector_of(*plan.secure_aggregation, promise, weight, parameters);
  const SecAggPlan protocol = secagg_plan(*plan.secure_aggregation, vector, promise);
  try {
    check_policy(protocol, demand.policy);
  } catch (const ProtocolError& error) {
    return std::string("secure_aggregation: ") + error.what();
  }
  if (parts_.masked_rounds.empty()) {
    return "state: without a folder this client would forget which updates it has let into a sum, and a second sum with one of them could show it; set one";
  }
  if (!parts_.enrol) return "secure_aggregation: this program has no identity to sign with";
  parts_.enrol();  // its ConfigError says what the certificate lacks
  primitives::self_test();
  secure_ = std::make_unique<SecureSession>(SecureSessionParts{client_, run_, vector, protocol, demand.policy, parts_.enrol, parts_.keys, static_cast<std::uint64_t>(plan.seed),
                                                               [this](std::uint32_t round) { masked_.note(run_, round); }});
  secure_->set_masked(masked_.newest(run_));
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
