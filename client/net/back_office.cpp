#include "client/net/back_office.h"

#include <chrono>
#include <new>
#include <optional>
#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/base/human.h"
#include "fl_core/base/memory.h"
#include "privacy/net/certificate_enrolment.h"

namespace fl {

BackOffice::BackOffice(StateFolder& state, const ClientHooks& hooks, LocalData data, const ClientConfig& config, Outputs outputs)
    : state_(state),
      hooks_(hooks),
      outputs_(std::move(outputs)),
      noise_keys_(hooks.noise_keys ? hooks.noise_keys : std::make_shared<SecureNoiseKeys>()),
      workbench_({std::move(data), config.limits.memory_mb ? static_cast<std::uint64_t>(*config.limits.memory_mb) * 1'000'000 : machine_bytes(), config.privacy, config.secure_aggregation,
                  *noise_keys_, state.participations_file(), state.masked_rounds_file(), [files = config.tls] { return std::make_shared<const Enrolment>(enrolment_from(files)); },
                  std::make_shared<Devices>(config.device, "device")}) {
  if (!hooks_.worker_setup) return;
  worker_.post([this] {
    try {
      hooks_.worker_setup();
    } catch (...) {
      outputs_.tell([this, error = std::current_exception()](ClientLink&) { outputs_.fail(error); });
    }
  });
}

void BackOffice::warn(const std::string& what) {
  outputs_.tell([what](ClientLink& link) { link.warn(what); });
}

template <class Action>
void BackOffice::on_storage(Action action) {
  storage_.post([this, action = std::move(action)]() mutable {
    try {
      action();
    } catch (const std::exception& error) {
      warn(error.what());
    }
  });
}

void BackOffice::prepare(std::uint64_t serial, const std::string& plan, const std::string& run, ClientId client, bool fresh) {
  if (fresh) on_storage([this, plan] { state_.store_plan(plan); });
  worker_.post([this, serial, plan, run, client] {
    PlanCheck check;
    if (hooks_.answer) {
      check.max_task_bytes = hooks_.max_task_bytes;
    } else {
      check = workbench_.prepare(plan, run, client);
    }
    outputs_.tell([this, serial, check](ClientLink& link) {
      if (check.operator_must_act) return outputs_.fail(std::make_exception_ptr(ConfigError(check.unfit)));
      if (!check.promise.empty() && hooks_.on_event) {
        hooks_.on_event(ClientEvent("promise", "this run costs " + check.promise, {{"promise", check.promise}}));
      }
      link.on_prepared(serial, check.max_task_bytes, check.unfit);
    });
  });
}

// ---- work ----

void BackOffice::start(std::uint64_t serial, const Message& task) {
  const auto stop = std::make_shared<std::atomic<bool>>(false);
  job_stop_ = stop;
  worker_.post([this, serial, task, stop] { work(serial, task, *stop); });
}

void BackOffice::interrupt() {
  if (job_stop_) *job_stop_ = true;
}

void BackOffice::work(std::uint64_t serial, const Message& task, const std::atomic<bool>& stop) {
  using Clock = std::chrono::steady_clock;
  const auto should_stop = [&stop] { return stop.load(std::memory_order_relaxed); };
  const Clock::time_point begin = Clock::now();
  const auto failed = [&](const std::string& why) { outputs_.tell([serial, why](ClientLink& link) { link.on_failed(serial, why); }); };
  try {
    std::optional<Message> answer;
    if (hooks_.answer) {
      answer.emplace(hooks_.answer(task, should_stop));
    } else {
      answer = workbench_.answer(task, should_stop);
    }
    const double took = std::chrono::duration<double>(Clock::now() - begin).count();
    if (!answer) return failed("there is no answer to this task");
    outputs_.tell([serial, took, message = std::move(*answer)](ClientLink& link) { link.on_answer(serial, message, took); });
  } catch (const Interrupted&) {
    outputs_.tell([serial](ClientLink& link) { link.on_interrupted(serial); });
  } catch (const ProtocolError& error) {
    outputs_.tell([serial, what = std::string(error.what())](ClientLink& link) { link.on_malformed(serial, what); });
  } catch (const std::bad_alloc&) {
    failed("out of memory while training");
  } catch (const std::exception& error) {
    failed(error.what());
  }
}

// ---- storage ----

void BackOffice::open_blob(const BlobReference& reference, bool keep) {
  storage_.post([this, reference, keep] {
    try {
      if (auto held = keep ? state_.find_blob(reference) : std::nullopt) {
        outputs_.tell([reference, bytes = std::move(*held)](ClientLink& link) { link.on_blob_ready(reference, bytes); });
        return;
      }
      const std::shared_ptr<PartialBlob> part = state_.open_part(reference, keep);
      outputs_.tell([part](ClientLink& link) { link.on_blob_opened(part); });
    } catch (const std::bad_alloc&) {
      const std::string what = "no memory for the task's " + human_bytes(static_cast<double>(reference.size_bytes));
      outputs_.tell([reference, what](ClientLink& link) { link.on_blob_refused(reference, what); });
    }
  });
}

void BackOffice::blob_grew(const std::shared_ptr<PartialBlob>& part) {
  const bool whole = part->received.load() == part->reference().size_bytes;
  // One look at a time is enough: it takes all that has come in until then.
  if (!whole && part->looked_at.exchange(true)) return;
  storage_.post([this, part, whole] { look_at(part, whole); });
}

void BackOffice::look_at(const std::shared_ptr<PartialBlob>& part, bool whole) {
  part->looked_at = false;
  const std::string complaint = state_.append(*part);
  if (!complaint.empty()) warn(complaint);
  if (!whole) return;
  if (auto bytes = state_.finish(part)) {
    outputs_.tell([part, blob = std::move(*bytes)](ClientLink& link) { link.on_blob_ready(part->reference(), blob); });
  } else {
    outputs_.tell([part](ClientLink& link) { link.on_blob_wrong(part->reference()); });
  }
}

void BackOffice::keep_answer(const StoredAnswer& answer, const SharedBuffer& body) {
  storage_.post([this, stored = answer, body]() mutable {
    try {
      state_.keep_answer(stored, body);
    } catch (const std::exception& error) {
      // Delivered all the same, from memory; only a restart would lose it.
      stored.body = reference_to(body.span());
      warn(error.what());
    }
    outputs_.tell([stored](ClientLink& link) { link.on_answer_kept(stored); });
  });
}

void BackOffice::hash_answer(const StoredAnswer& answer, const SharedBuffer& body) {
  storage_.post([this, hashed = answer, body]() mutable {
    hashed.body = reference_to(body.span());
    outputs_.tell([hashed](ClientLink& link) { link.on_answer_kept(hashed); });
  });
}

void BackOffice::load_body(const StoredAnswer& answer) {
  storage_.post([this, answer] {
    try {
      const SharedBuffer body = state_.load_body(answer);
      outputs_.tell([key = answer.key, body](ClientLink& link) { link.on_body_loaded(key, body); });
    } catch (const std::exception& error) {
      outputs_.tell([key = answer.key, what = std::string(error.what())](ClientLink& link) { link.on_body_lost(key, what); });
    }
  });
}

void BackOffice::forget_answer(const std::string& key) {
  on_storage([this, key] { state_.forget_answer(key); });
}

}  // namespace fl
