#include "client/net/client_link.h"

#include <algorithm>

#include "fl_core/base/error.h"
#include "fl_core/base/human.h"
#include "fl_core/base/sha256.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

std::string round_text(std::uint32_t round) { return "round " + std::to_string(round); }

std::string sha256_of_text(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

bool is_train(const FrameHeader& head) { return head.type == FrameType::train; }

ClientEvent begin_event(const FrameHeader& task, std::uint32_t secure_step, std::uint64_t examples) {
  if (secure_step != 0) {
    return ClientEvent("secure_step", round_text(task.round) + ": secure aggregation, step " + std::to_string(secure_step) + " of " + std::to_string(kSecureSteps),
                       {{"round", task.round}, {"step", secure_step}});
  }
  const bool train = is_train(task);
  return ClientEvent("training", round_text(task.round) + (train ? ": training on " + human_count(static_cast<std::int64_t>(examples)) + " examples" : ": measuring"),
                     {{"round", task.round}, {"task", train ? "train" : "evaluate"}, {"examples", examples}});
}

}  // namespace

bool LinkEnd::final() const {
  if (kind != Kind::refused || retry_s != 0) return false;
  return code == Refusal::not_admitted || code == Refusal::mismatch || code == Refusal::revoked || code == Refusal::protocol;
}

ClientLink::ClientLink(LinkEffects& effects, LinkProfile profile, std::string plan, std::vector<StoredAnswer> answers)
    : effects_(effects), profile_(std::move(profile)), plan_(std::move(plan)) {
  if (!plan_.empty()) plan_sha256_ = sha256_of_text(plan_);
  for (StoredAnswer& stored : answers) {
    Answer answer;
    answer.stored = std::move(stored);
    answer.kept = true;
    answers_.push_back(std::move(answer));
  }
}

Frame ClientLink::hello() {
  state_ = State::greeting;
  ended_.reset();
  heartbeat_answered_ = heartbeat_sent_ = next_request_ - 1;
  Hello hello;
  hello.software = profile_.software;
  hello.examples = profile_.tells_examples ? profile_.examples : std::min<std::uint64_t>(1, profile_.examples);
  hello.input = profile_.input;
  hello.classes = profile_.classes;
  hello.threads = profile_.threads;
  hello.plan_sha256 = plan_sha256_;
  hello.ready = allowed_;
  return encode(hello);
}

void ClientLink::unexpected(const Frame& frame) const {
  throw ProtocolError("the server sent '" + frame_type_name(static_cast<std::uint8_t>(frame.head.type)) + "' " +
                      (state_ == State::greeting ? "before its welcome" : "where it does not belong"));
}

void ClientLink::on_frame(const Frame& frame) {
  if (ended_ || state_ == State::offline) unexpected(frame);
  if (frame.head.type == FrameType::goodbye) {
    const Goodbye goodbye = parse_goodbye(frame);
    ended_ = LinkEnd{LinkEnd::Kind::goodbye, Refusal::busy, goodbye.reason, goodbye.retry_s, goodbye.finished};
    return;
  }
  if (frame.head.type == FrameType::refused) {
    const Refused refused = parse_refused(frame);
    ended_ = LinkEnd{LinkEnd::Kind::refused, refused.code, refused.reason, refused.retry_s, false};
    return;
  }
  if (state_ == State::greeting) {
    if (frame.head.type != FrameType::welcome) unexpected(frame);
    return on_welcome(frame);
  }
  switch (frame.head.type) {
    case FrameType::train:
    case FrameType::evaluate:
    case FrameType::secure_step: return on_task(frame);
    case FrameType::grant: return on_grant(frame);
    case FrameType::receipt: return on_receipt(frame);
    case FrameType::heartbeat_reply: return on_heartbeat_reply(frame);
    default: unexpected(frame);
  }
}

void ClientLink::on_welcome(const Frame& frame) {
  const Welcome welcome = parse_welcome(frame);
  if (welcome.protocol != kProtocolVersion) {
    throw ProtocolError("the server speaks protocol " + std::to_string(welcome.protocol) + ", this client speaks " + std::to_string(kProtocolVersion));
  }
  bool fresh = false;
  if (welcome.plan.size() != 0) {
    const auto bytes = welcome.plan.span();
    const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    if (sha256_of_text(text) != welcome.plan_sha256) throw ProtocolError("the server's plan does not have the hash that it announces");
    fresh = welcome.plan_sha256 != plan_sha256_;
    plan_ = text;
    plan_sha256_ = welcome.plan_sha256;
  } else if (plan_.empty() || welcome.plan_sha256 != plan_sha256_) {
    throw ProtocolError("the server sent no plan, and this client does not hold the one that it names");
  }
  state_ = State::live;
  heartbeat_s_ = welcome.heartbeat_s;
  if (fresh || plan_state_ == Plan::none || run_ != welcome.run || client_ != welcome.client) {
    while (!work_.empty()) withdraw(work_.begin());
    plan_state_ = Plan::preparing;
    unfit_told_ = false;
    effects_.prepare(++plan_serial_, plan_, welcome.run, welcome.client, fresh);
  }
  run_ = welcome.run;
  client_ = welcome.client;
  for (std::size_t i = answers_.size(); i-- > 0;) {
    if (answers_[i].stored.run == run_) continue;
    effects_.note(ClientEvent("warning", round_text(answers_[i].stored.round) + ": an answer for another run was dropped"));
    forget(i);
  }
  effects_.note(ClientEvent("connected", "connected as client " + std::to_string(client_), {{"client", client_}, {"run", run_}, {"answers_waiting", answers_.size()}}));
}

std::string ClientLink::task_key(const Frame& frame, const BlobReference& body) const {
  Sha256 hash;
  hash.add(run_ + "\n" + frame_type_name(static_cast<std::uint8_t>(frame.head.type)) + "\n" + std::to_string(frame.head.round) + "\n" +
           std::to_string(frame.header.size()) + "\n" + std::to_string(body.size_bytes) + "\n");
  return hash.add(frame.header.span()).add(body.sha256).finish_hex();
}

void ClientLink::on_task(const Frame& frame) {
  const bool blob = (frame.head.flags & kFlagBlob) != 0;
  if (!blob && frame.body.size() > limits::kInlineBytes) {
    throw ProtocolError("a task with a body of " + std::to_string(frame.body.size()) + " bytes in one frame; above " + std::to_string(limits::kInlineBytes) + " it must be a blob");
  }
  const BlobReference body = blob ? parse_blob_reference(frame.body.span()) : reference_to(frame.body.span());
  const std::string key = task_key(frame, body);
  if (recognise(key, frame)) return;
  const std::uint32_t secure_step = frame.head.type == FrameType::secure_step ? parse_secure_header(message_of(frame, SharedBuffer())).step : 0;
  // What the server has not named again after a new connection, before it asks for something else, nobody waits for.
  for (auto work = work_.begin(); work != work_.end();) {
    if (work->bound) {
      ++work;
      continue;
    }
    withdraw(work);
    work = work_.begin();
  }
  drop_outdated(frame.head);
  if (work_.size() >= kTasks) throw ProtocolError("more than " + std::to_string(kTasks) + " tasks at once");
  Work work;
  work.key = key;
  work.request = frame.head.request;
  work.bound = true;
  work.head = frame.head;
  work.header = frame.header;
  if (!blob) work.body = frame.body;
  work.blob = body;
  work.secure_step = secure_step;
  work_.push_back(std::move(work));
  advance();
}

bool ClientLink::recognise(const std::string& key, const Frame& frame) {
  const std::uint64_t request = frame.head.request;
  const auto other_task = [&](const std::string& known) {
    if (known != key) throw ProtocolError("request " + std::to_string(request) + " stands for two tasks");
    return true;
  };
  for (const Work& work : work_) {
    if (work.bound && work.request == request) return other_task(work.key);
  }
  for (const Answer& answer : answers_) {
    if (answer.bound && answer.stored.request == request) return other_task(answer.stored.key);
  }
  if (Answer* answer = find_answer(key)) {
    answer->stored.request = request;
    answer->bound = true;
    answer->offered = false;
    answer->upload.reset();
    if (answer->kept) offer(*answer);
    return true;
  }
  for (Work& work : work_) {
    if (work.key != key || !work.stopping.empty()) continue;
    work.request = request;
    work.bound = true;
    return true;
  }
  return false;
}

/// What nobody can ask for any more once this task has begun.
void ClientLink::drop_outdated(const FrameHeader& task) {
  for (std::size_t i = answers_.size(); i-- > 0;) {
    const Answer& answer = answers_[i];
    // A step of secure aggregation follows on the one before it, and `train` begins it anew.
    const bool over = answer.in_memory ? task.type != FrameType::evaluate : !answer.bound && answer.stored.round < task.round;
    if (!over) continue;
    if (answer.secure_step == 0 || answer.secure_step == kSecureSteps) {
      effects_.note(ClientEvent("settled", round_text(answer.stored.round) + ": over before the answer could be delivered",
                                {{"round", answer.stored.round}, {"outcome", "lost"}}));
    }
    forget(i);
  }
}

void ClientLink::advance() {
  while (!work_.empty() && work_.front().stage == Work::Stage::waiting) {
    if (plan_state_ == Plan::none || plan_state_ == Plan::preparing) return;
    // A step of secure aggregation is cheap, and the others of its round wait for it.
    const bool may_begin = allowed_ || work_.front().secure_step != 0;
    if (plan_state_ == Plan::unfit || !may_begin) {
      const bool unfit = plan_state_ == Plan::unfit;
      refuse(work_.front(), unfit ? unfit_ : "not training now: " + not_allowed_);
      work_.pop_front();
      // Said once; after that the server need not ask again.
      if (unfit && !unfit_told_) {
        unfit_told_ = true;
        effects_.send(heartbeat());
      }
      continue;
    }
    if (busy_) return;  // a job that was withdrawn ends first
    begin(work_.front());
  }
}

void ClientLink::begin(Work& work) {
  if ((work.head.flags & kFlagBlob) == 0) return run_task(work);
  if (work.blob.size_bytes > max_task_bytes_) {
    throw ProtocolError("a task refers to " + std::to_string(work.blob.size_bytes) + " bytes, no task of the plan has more than " + std::to_string(max_task_bytes_));
  }
  work.stage = Work::Stage::opening;
  effects_.open_blob(work.blob, work.secure_step == 0);
}

void ClientLink::run_task(Work& work) {
  work.stage = Work::Stage::running;
  busy_ = true;
  wanted_ = ++serial_;
  effects_.note(begin_event(work.head, work.secure_step, profile_.examples));
  effects_.start(serial_, Message(static_cast<MessageType>(work.head.type), work.head.round, work.header, work.body));
}

void ClientLink::refuse(const Work& work, const std::string& reason) {
  effects_.note(ClientEvent("failed", round_text(work.head.round) + ": " + reason, {{"round", work.head.round}, {"reason", reason}}));
  if (!work.bound || state_ != State::live) return;
  effects_.send(frame_of(encode_failure(work.head.round, reason), work.request));
}

void ClientLink::give_up_fetch() {
  if (!incoming_) return;
  const std::uint64_t left = incoming_->blob->reference().size_bytes - incoming_->blob->received.load();
  if (left != 0) abandoned_[incoming_->request] = left;
  incoming_.reset();
  if (abandoned_.size() > kAbandoned) throw ProtocolError("the server withdrew too many tasks while it was sending them");
}

void ClientLink::withdraw(std::deque<Work>::iterator work) {
  const Work::Stage stage = work->stage;
  work_.erase(work);
  if (stage == Work::Stage::running && wanted_ != 0) {
    wanted_ = 0;
    effects_.interrupt();
  }
  if (stage == Work::Stage::fetching) give_up_fetch();
}

std::deque<ClientLink::Work>::iterator ClientLink::finished_work(std::uint64_t serial) {
  busy_ = false;
  if (serial != wanted_ || work_.empty()) return work_.end();
  wanted_ = 0;
  return work_.begin();
}

void ClientLink::on_prepared(std::uint64_t serial, std::uint64_t max_task_bytes, const std::string& unfit) {
  if (serial != plan_serial_) return;
  max_task_bytes_ = max_task_bytes;
  unfit_ = unfit;
  plan_state_ = unfit.empty() ? Plan::ready : Plan::unfit;
  if (!unfit.empty()) effects_.note(ClientEvent("warning", unfit));
  advance();
}

void ClientLink::on_answer(std::uint64_t serial, const Message& message, double seconds) {
  const auto work = finished_work(serial);
  if (work == work_.end()) return advance();
  Answer answer;
  answer.stored.key = work->key;
  answer.stored.run = run_;
  answer.stored.request = work->request;
  answer.stored.type = message.type();
  answer.stored.round = message.round();
  answer.stored.header = message.header();
  answer.body = message.body();
  answer.body_held = true;
  answer.bound = work->bound;
  const bool failed = message.type() == MessageType::failed;
  answer.in_memory = message.type() == MessageType::secure_answer || work->secure_step != 0;
  if (answer.in_memory && !failed) answer.secure_step = std::max(1U, work->secure_step);
  if (work->secure_step == 0) {
    effects_.note(ClientEvent("trained", round_text(work->head.round) + ": done in " + human_seconds(seconds), {{"round", work->head.round}, {"seconds", seconds}}));
  } else if (failed) {
    const std::string reason = parse_failure(message);
    effects_.note(ClientEvent("failed", round_text(work->head.round) + ": " + reason, {{"round", work->head.round}, {"reason", reason}}));
  }
  work_.erase(work);
  if (answers_.size() >= kAnswers) {
    const auto unbound = std::find_if(answers_.begin(), answers_.end(), [](const Answer& one) { return !one.bound; });
    forget(unbound == answers_.end() ? 0 : static_cast<std::size_t>(unbound - answers_.begin()));
  }
  answers_.push_back(std::move(answer));
  keep(answers_.back());
  advance();
}

void ClientLink::on_failed(std::uint64_t serial, const std::string& reason) {
  const auto work = finished_work(serial);
  if (work != work_.end()) {
    refuse(*work, work->stopping.empty() ? reason : work->stopping);
    work_.erase(work);
  }
  advance();
}

void ClientLink::on_interrupted(std::uint64_t serial) { on_failed(serial, "interrupted"); }

void ClientLink::on_malformed(std::uint64_t serial, const std::string& what) {
  const auto work = finished_work(serial);
  if (work == work_.end()) return advance();
  work_.erase(work);
  throw ProtocolError(what);
}

void ClientLink::on_policy(bool allowed, const std::string& reason) {
  not_allowed_ = reason;
  if (allowed == allowed_) return;
  allowed_ = allowed;
  effects_.note(allowed ? ClientEvent("resumed", "training is allowed again") : ClientEvent("paused", "not training: " + reason, {{"reason", reason}}));
  if (state_ == State::live) effects_.send(heartbeat());
  if (allowed) return advance();
  for (std::size_t i = work_.size(); i-- > 0;) {
    const auto work = work_.begin() + static_cast<std::ptrdiff_t>(i);
    if (work->secure_step != 0) continue;
    if (work->stage == Work::Stage::running) {
      if (work->stopping.empty()) effects_.interrupt();
      work->stopping = "training stopped: " + reason;
    } else {
      refuse(*work, "not training now: " + reason);
      withdraw(work);
    }
  }
}

Frame ClientLink::goodbye(const std::string& reason) {
  incoming_.reset();
  while (!work_.empty()) withdraw(work_.begin());
  Goodbye goodbye;
  goodbye.reason = reason;
  return encode(goodbye);
}

void ClientLink::disconnected() {
  state_ = State::offline;
  // The task comes again, and what was fetched of its weights stays in the store.
  while (!work_.empty() && work_.back().stage != Work::Stage::running) work_.pop_back();
  for (Work& work : work_) work.bound = false;
  incoming_.reset();
  abandoned_.clear();
  for (Answer& answer : answers_) {
    answer.bound = answer.offered = false;
    answer.upload.reset();
  }
}

Frame ClientLink::heartbeat() {
  if (incoming_ && ++silent_beats_ > kSilentBeats) throw ProtocolError("the server does not send what it was asked for");
  Heartbeat heartbeat;
  heartbeat.ready = allowed_ && !unfit_told_;
  if (!work_.empty() && work_.front().stage == Work::Stage::running) heartbeat.training_round = work_.front().head.round;
  heartbeat_sent_ = next_request_++;
  return encode(heartbeat, heartbeat_sent_);
}

void ClientLink::on_heartbeat_reply(const Frame& frame) {
  parse_heartbeat_reply(frame);
  if (frame.head.request <= heartbeat_answered_ || frame.head.request > heartbeat_sent_) {
    throw ProtocolError("a reply to a heartbeat that was not sent (request " + std::to_string(frame.head.request) + ")");
  }
  heartbeat_answered_ = frame.head.request;
}

}  // namespace fl
