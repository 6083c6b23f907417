#include "fl_core/wire/message.h"

#include <utility>

#include "fl_core/base/error.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/wire/header.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

/// The header of a message of this type, whose round must be the message's.
HeaderReader open_header(const Message& message, MessageType type, const char* what) {
  if (message.type() != type) {
    throw ProtocolError(std::string("malformed ") + what + ": message type " + std::to_string(static_cast<unsigned>(message.type())));
  }
  HeaderReader header(message.header().span(), what);
  std::uint32_t round = 0;
  header.integer("round", round);
  if (round != message.round()) {
    header.fail("round " + std::to_string(round) + " in a message of round " + std::to_string(message.round()));
  }
  return header;
}

}  // namespace

Message encode_task(const Task& task) {
  const auto type = task.kind == TaskKind::train ? MessageType::train : MessageType::evaluate;
  SharedBuffer header = encode_header({{"round", task.round}, {"model_version", task.model_version}, {"fingerprint", task.fingerprint}});
  return Message(type, task.round, std::move(header), task.weights);
}

Task parse_task(const Message& message, const Layout& layout) {
  const bool evaluate = message.type() == MessageType::evaluate;
  HeaderReader header = open_header(message, evaluate ? MessageType::evaluate : MessageType::train, "task");
  Task task;
  task.kind = evaluate ? TaskKind::evaluate : TaskKind::train;
  task.round = message.round();
  header.integer("model_version", task.model_version);
  header.integer("fingerprint", task.fingerprint);
  header.finish();
  if (task.fingerprint != layout.fingerprint()) {
    header.fail("it is for a model with layout " + std::to_string(task.fingerprint) + ", this client has layout " +
                std::to_string(layout.fingerprint()) + "; give both the same 'model' section");
  }
  if (message.body().size() / sizeof(float) != layout.size() || message.body().size() % sizeof(float) != 0) {
    header.fail("body of " + std::to_string(message.body().size()) + " bytes, expected " +
                std::to_string(layout.size() * sizeof(float)));
  }
  task.weights = message.body();
  return task;
}

Message encode_update(const UpdateHeader& update, SharedBuffer encoded) {
  SharedBuffer header = encode_header({{"round", update.round},
                                       {"model_version", update.model_version},
                                       {"fingerprint", update.fingerprint},
                                       {"weight", update.weight},
                                       {"steps", update.steps},
                                       {"examples", update.metrics.examples},
                                       {"correct", update.metrics.correct},
                                       {"loss_units", update.metrics.loss_units},
                                       {"codec", update.codec}});
  return Message(MessageType::update, update.round, std::move(header), std::move(encoded));
}

UpdateHeader parse_update_header(const Message& message) {
  HeaderReader header = open_header(message, MessageType::update, "update");
  UpdateHeader update;
  update.round = message.round();
  header.integer("model_version", update.model_version);
  header.integer("fingerprint", update.fingerprint);
  header.integer<std::uint32_t>("weight", update.weight, 1, ExactSum::kMaxWeight);
  header.integer("steps", update.steps);
  header.integer<std::int64_t>("examples", update.metrics.examples, 0, limits::kClientExamples);
  header.integer<std::int64_t>("correct", update.metrics.correct, 0, update.metrics.examples);
  header.integer<std::int64_t>("loss_units", update.metrics.loss_units, 0);
  update.codec = header.text("codec", limits::kNameBytes);
  header.finish();
  return update;
}

Message encode_secure(MessageType type, const SecureHeader& secure, SharedBuffer body) {
  FL_CHECK(type == MessageType::secure_step || type == MessageType::secure_answer, "no message of secure aggregation");
  SharedBuffer header =
      encode_header({{"round", secure.round}, {"model_version", secure.model_version}, {"fingerprint", secure.fingerprint}, {"step", secure.step}});
  return Message(type, secure.round, std::move(header), std::move(body));
}

SecureHeader parse_secure_header(const Message& message) {
  const bool step = message.type() == MessageType::secure_step;
  HeaderReader header = open_header(message, step ? MessageType::secure_step : MessageType::secure_answer, "message of secure aggregation");
  SecureHeader secure;
  secure.round = message.round();
  header.integer("model_version", secure.model_version);
  header.integer("fingerprint", secure.fingerprint);
  header.integer<std::uint32_t>("step", secure.step, step ? 2 : 1, kSecureSteps);
  header.finish();
  return secure;
}

Message encode_failure(std::uint32_t round, const std::string& reason) {
  SharedBuffer header = encode_header({{"round", round}, {"reason", cleaned_text(reason, limits::kReasonBytes)}});
  return Message(MessageType::failed, round, std::move(header), SharedBuffer());
}

std::string parse_failure(const Message& message) {
  HeaderReader header = open_header(message, MessageType::failed, "failure notice");
  std::string reason = header.text("reason", limits::kReasonBytes);
  header.finish();
  if (message.body().size() != 0) header.fail("it has a body");
  return reason;
}

}  // namespace fl
