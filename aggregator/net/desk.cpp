#include "aggregator/net/desk.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/config/plan.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

/// Any upload gets this long beside what its length needs.
constexpr Seconds kUploadSlack_s = 10;

std::string profile_of(const Hello& hello) {
  return nlohmann::json{{"software", hello.software}, {"examples", hello.examples}, {"input", hello.input}, {"classes", hello.classes}, {"threads", hello.threads}}.dump();
}

/// An answer that cannot be taken, as a message that the engine will find malformed: it counts and reports all rejections.
Message without_body(const Frame& frame) { return message_of(frame, SharedBuffer()); }

/// Whether the answer to a task of this type may have a body that does not fit into a frame.
bool may_be_large(FrameType answer, MessageType task) {
  if (answer == FrameType::update) return task == MessageType::train;
  return answer == FrameType::secure_answer && (task == MessageType::train || task == MessageType::secure_step);
}

/// Whether the client may forget its answer before the round is committed. Measuring is not committed. Secure aggregation starts
/// anew after a crash, so nobody can ever ask for the answer of a step again; only the last one waits for the round's outcome.
bool settles_at_once(const Message& task, const std::optional<Message>& answer) {
  if (task.type() == MessageType::evaluate) return true;
  if (!answer || answer->type() != MessageType::secure_answer) return false;
  return task.type() != MessageType::secure_step || parse_secure_header(task).step < kSecureSteps;
}

}  // namespace

Desk::Desk(DeskOptions options, Outputs outputs, const std::vector<ClientRecord>& known)
    : options_(std::move(options)), outputs_(std::move(outputs)), shape_text_(shape_text(options_.shape)), pool_(options_.uploads, outputs_.credit_returned) {
  const auto plan = std::as_bytes(std::span(options_.plan));
  FL_CHECK(plan.size() <= limits::kPlanBytes, "a plan that does not fit into a welcome");
  plan_ = SharedBuffer::copy_of(plan);
  plan_sha256_ = sha256_hex(plan);
  for (const ClientRecord& record : known) add_client(record.id, record.identity).record = record;
  for (std::size_t i = 0; i < options_.listed.size(); ++i) {
    const std::string& identity = options_.listed[i];
    listed_.insert(identity);
    if (by_identity_.contains(identity)) continue;
    if (clients_.contains(i)) {
      throw ConfigError("clients.listed." + std::to_string(i) + ": got \"" + identity + "\", but in this run client " + std::to_string(i) + " is '" +
                        clients_.at(i).record.identity + "'; add new names at the end of the list");
    }
    changed(add_client(i, identity));
  }
}

Desk::Client& Desk::add_client(ClientId id, const std::string& identity) {
  Client& client = clients_[id];
  client.record.id = id;
  client.record.identity = identity;
  by_identity_[identity] = id;
  return client;
}

Desk::Client* Desk::admit(const std::string& identity, double unix_seconds) {
  const auto known = by_identity_.find(identity);
  if (options_.listed_only && !listed_.contains(identity)) return nullptr;
  Client& client = known != by_identity_.end() ? clients_.at(known->second)
                                               : add_client(clients_.empty() ? 0 : clients_.rbegin()->first + 1, identity);
  if (client.record.first_seen == 0) client.record.first_seen = unix_seconds;
  return &client;
}

std::optional<Refused> Desk::connect(const std::shared_ptr<Line>& line, const std::string& identity, const Hello& hello, double unix_seconds, Seconds) {
  if (hello.protocol != kProtocolVersion) {
    return Refused{Refusal::protocol, "this aggregator speaks protocol " + std::to_string(kProtocolVersion) + ", the client " + std::to_string(hello.protocol), 0};
  }
  if (hello.input != shape_text_ || hello.classes != static_cast<std::uint64_t>(options_.shape.classes)) {
    return Refused{Refusal::mismatch, "the examples have shape " + hello.input + " and " + std::to_string(hello.classes) + " classes, this run needs " + shape_text_ +
                                          " and " + std::to_string(options_.shape.classes), 0};
  }
  if (hello.examples == 0) return Refused{Refusal::mismatch, "the client has no examples", 0};
  Client* client = admit(identity, unix_seconds);
  if (client == nullptr) return Refused{Refusal::not_admitted, "'" + identity + "' is not on this run's list of clients", 0};
  if (client->line) {
    // The newer connection wins: the older may be half open, and nobody could tell.
    client->line->end(encode(Refused{Refusal::fenced, "a newer connection of '" + identity + "' took over", 0}));
    lines_.erase(client->line.get());
  }
  client->line = line;
  client->ready = hello.ready;
  note_ready(*client);
  client->record.last_seen = unix_seconds;
  ++client->record.sessions;
  client->record.profile = profile_of(hello);
  lines_[line.get()] = client->record.id;
  away_.erase(client->record.id);
  changed(*client);

  Welcome welcome;
  welcome.run = options_.run;
  welcome.client = client->record.id;
  welcome.heartbeat_s = options_.heartbeat_s;
  welcome.plan_sha256 = plan_sha256_;
  if (hello.plan_sha256 != plan_sha256_) welcome.plan = plan_;
  line->send(encode(welcome));
  if (client->job) {
    client->job->away_since = kNever;
    if (!client->job->answered) send_task(*client);
  } else if (client->last_receipt) {
    line->send(*client->last_receipt);
  }
  outputs_.roster_changed();
  return std::nullopt;
}

void Desk::disconnected(const Line& line, double unix_seconds, Seconds now) { leave(line, unix_seconds, now, false); }
void Desk::goodbye(const Line& line, double unix_seconds, Seconds now) { leave(line, unix_seconds, now, true); }

void Desk::leave(const Line& line, double unix_seconds, Seconds now, bool on_purpose) {
  const auto found = lines_.find(&line);
  if (found == lines_.end()) return;  // it was fenced, or never welcomed
  Client& client = clients_.at(found->second);
  lines_.erase(found);
  client.line.reset();
  note_ready(client);
  client.record.last_seen = unix_seconds;
  changed(client);
  if (client.job && !client.job->answered) {
    if (on_purpose) {
      deliver(client, Arrival::Kind::left, std::nullopt, now);
    } else {
      client.job->away_since = now;
      away_.insert(client.record.id);
      if (!waiting_.empty()) steal_credit();
    }
  }
  outputs_.roster_changed();
}

Desk::Client& Desk::client_of(const Line& line) {
  const auto found = lines_.find(&line);
  if (found == lines_.end()) throw ProtocolError("a frame on a connection that was ended");
  return clients_.at(found->second);
}

void Desk::heartbeat(const Line& line, const Heartbeat& heartbeat) {
  Client& client = client_of(line);
  if (client.ready == heartbeat.ready) return;
  client.ready = heartbeat.ready;
  note_ready(client);
  outputs_.roster_changed();
}

void Desk::fetch(const Line& line, std::uint64_t request, const Fetch& fetch) {
  Client& client = client_of(line);
  // The round may have been closed while the question was on its way: then the receipt is the answer.
  if (!client.job || client.job->blob != fetch.blob) return;
  client.line->send_blob(request, client.job->message.body(), fetch.offset);
}

void Desk::answer(const Line& line, const Frame& frame, Seconds now) {
  Client& client = client_of(line);
  if (!client.job || client.job->request != frame.head.request) {
    client.line->send(encode(Receipt{Outcome::wrong_round}, frame.head.request, frame.head.round));
    return;
  }
  Job& job = *client.job;
  if (job.answered) return;  // a duplicate; the receipt will follow
  if ((frame.head.flags & kFlagBlob) == 0) {
    deliver(client, Arrival::Kind::message, message_of(frame, frame.body), now);
    return;
  }
  const BlobReference blob = parse_blob_reference(frame.body.span());
  const bool fits = may_be_large(frame.head.type, job.message.type()) && blob.size_bytes <= options_.max_update_bytes;
  if (!fits) {
    deliver(client, Arrival::Kind::message, without_body(frame), now);
    return;
  }
  const bool goes_on = job.upload && job.upload->blob == blob && job.upload->lease;
  if (!goes_on) {
    drop_upload(client);
    job.upload = Upload{blob, frame, {}, 0, 0, 0};
  }
  grant(client);
}

void Desk::grant(Client& client) {
  if (lend_credit(client)) {
    client.still_coming = 0;
    client.line->send(encode_grant(client.job->request, client.job->upload->received));
    return;
  }
  if (std::find(waiting_.begin(), waiting_.end(), client.record.id) == waiting_.end()) waiting_.push_back(client.record.id);
  steal_credit();
}

bool Desk::lend_credit(Client& client) {
  Upload& upload = *client.job->upload;
  if (upload.lease) return true;
  upload.lease = pool_.take(static_cast<std::size_t>(upload.blob.size_bytes));
  if (!upload.lease) return false;
  upload.hash = std::make_shared<Sha256>();
  upload.granted_at = now_;
  uploading_.insert(client.record.id);
  return true;
}

/// Whoever creeps, or says nothing more, would keep the others' updates waiting for as long as it likes.
void Desk::end_slow_uploads(Seconds now) {
  const std::set<ClientId> uploading = uploading_;
  for (const ClientId id : uploading) {
    Client& client = clients_.at(id);
    if (!client.job || !client.job->upload || !client.job->upload->lease) {
      uploading_.erase(id);
      continue;
    }
    const Upload& upload = *client.job->upload;
    if (now - upload.granted_at <= kUploadSlack_s + static_cast<double>(upload.blob.size_bytes) / options_.minimum_bytes_per_s) continue;
    uploading_.erase(id);
    drop_upload(client);
    if (client.line) client.line->end(encode(Refused{Refusal::busy, "the update came slower than " + std::to_string(static_cast<std::int64_t>(options_.minimum_bytes_per_s)) + " bytes a second", std::max(options_.retry_s, 1U)}));
  }
}

/// A half-done upload of someone who is away gives way to those who are here; it begins anew when its client returns.
bool Desk::steal_credit() {
  for (const ClientId id : away_) {
    Client& client = clients_.at(id);
    if (!client.job || !client.job->upload || !client.job->upload->lease) continue;
    drop_upload(client);
    return true;
  }
  return false;
}

void Desk::drop_upload(Client& client) {
  if (!client.job || !client.job->upload) return;
  const Upload& upload = *client.job->upload;
  if (upload.lease && client.line) client.still_coming = upload.blob.size_bytes - upload.received;
  client.job->upload.reset();
}

void Desk::credit_freed() {
  while (!waiting_.empty()) {
    Client& client = clients_.at(waiting_.front());
    if (client.line && client.job && client.job->upload && !client.job->upload->lease) {
      if (!lend_credit(client)) return;
      grant(client);
    }
    waiting_.pop_front();
  }
}

Desk::Place Desk::chunk_place(const Line& line, const FrameHeader& head, std::uint64_t offset) {
  Client& client = client_of(line);
  if (!client.job || !client.job->upload || !client.job->upload->lease || client.job->request != head.request) {
    if (head.body_bytes > client.still_coming) throw ProtocolError("a chunk that nothing was granted for");
    client.still_coming -= head.body_bytes;
    return {};
  }
  Upload& upload = *client.job->upload;
  if (offset != upload.received) {
    throw ProtocolError("a chunk at offset " + std::to_string(offset) + ", expected " + std::to_string(upload.received));
  }
  if (head.body_bytes > upload.blob.size_bytes - upload.received) throw ProtocolError("a chunk beyond the end of its upload");
  upload.piece = head.body_bytes;
  return {upload.lease.bytes().subspan(static_cast<std::size_t>(upload.received), upload.piece), upload.lease};
}

void Desk::chunk_done(const Line& line, Seconds now) {
  Client& client = client_of(line);
  // The round may have been closed while the piece was read.
  if (!client.job || !client.job->upload || !client.job->upload->lease) return;
  Upload& upload = *client.job->upload;
  const std::size_t size = std::exchange(upload.piece, 0);
  outputs_.piece({upload.hash, upload.lease, upload.lease.bytes().subspan(static_cast<std::size_t>(upload.received), size)});
  upload.received += size;
  if (upload.received < upload.blob.size_bytes) return;
  Message message = message_of(upload.header, std::move(upload.lease).share());
  const BlobReference blob = upload.blob;
  const std::shared_ptr<Sha256> hash = upload.hash;
  client.job->upload.reset();
  deliver(client, Arrival::Kind::message, std::move(message), now, blob, hash);
}

void Desk::deliver(Client& client, Arrival::Kind kind, std::optional<Message> message, Seconds now, std::optional<BlobReference> blob,
                   std::shared_ptr<Sha256> hash) {
  Job& job = *client.job;
  const bool at_once = settles_at_once(job.message, message);
  Delivery delivery;
  delivery.arrival.kind = kind;
  delivery.arrival.client = client.record.id;
  delivery.arrival.round = job.message.round();
  delivery.arrival.time = now;
  delivery.arrival.message = std::move(message);
  delivery.blob = std::move(blob);
  delivery.hash = std::move(hash);
  away_.erase(client.record.id);
  drop_upload(client);
  if (kind != Arrival::Kind::message) {
    client.job.reset();
  } else if (at_once) {
    settle(client, Outcome::accepted);
  } else {
    job.answered = true;
    // The task's body is not needed for this client any more; only type and round are.
    job.message = Message(job.message.type(), job.message.round(), SharedBuffer(), SharedBuffer());
    job.blob.reset();
  }
  outputs_.deliver(std::move(delivery));
}

void Desk::settle(Client& client, Outcome outcome) {
  client.last_receipt = encode(Receipt{outcome}, client.job->request, client.job->message.round());
  drop_upload(client);
  if (client.line) {
    client.line->stop_blob();
    client.line->send(*client.last_receipt);
  }
  client.job.reset();
}

void Desk::assign(ClientId id, const Message& message, const std::optional<BlobReference>& blob, Seconds now) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) {
    outputs_.deliver(Delivery{Arrival{Arrival::Kind::left, id, message.round(), now, std::nullopt}, std::nullopt, nullptr});
    return;
  }
  Client& client = found->second;
  if (client.job && !client.job->answered) withdraw(client, now);
  client.last_receipt.reset();
  client.job.emplace(next_request_++, message, blob);
  if (client.line) {
    send_task(client);
  } else {
    client.job->away_since = now;
    away_.insert(id);
  }
}

void Desk::send_task(Client& client) {
  const Job& job = *client.job;
  client.line->send(job.blob ? frame_of(job.message, job.request, *job.blob) : frame_of(job.message, job.request));
}

/// Nobody waits for its answer any more.
void Desk::withdraw(Client& client, Seconds now) {
  Delivery closed;
  closed.arrival = Arrival{Arrival::Kind::closed, client.record.id, client.job->message.round(), now, std::nullopt};
  away_.erase(client.record.id);
  settle(client, Outcome::late);
  outputs_.deliver(std::move(closed));
}

void Desk::close_round(std::uint32_t round, Seconds now) {
  for (auto& [id, client] : clients_) {
    if (!client.job || client.job->answered || client.job->message.round() != round) continue;
    withdraw(client, now);
  }
  waiting_.clear();
}

void Desk::committed(const RoundReport& report) {
  for (const ClientOutcome& member : report.cohort) {
    const auto found = clients_.find(member.client);
    if (found == clients_.end()) continue;
    Client& client = found->second;
    if (client.job && client.job->answered && client.job->message.round() == report.round) settle(client, member.outcome);
  }
}

void Desk::tick(Seconds now) {
  now_ = now;
  end_slow_uploads(now);
  const std::set<ClientId> away = away_;
  for (const ClientId id : away) {
    Client& client = clients_.at(id);
    if (now - client.job->away_since >= options_.grace_s) deliver(client, Arrival::Kind::left, std::nullopt, now);
  }
}

void Desk::note_ready(const Client& client) {
  const ClientId id = client.record.id;
  const bool is_ready = client.line && client.ready;
  const bool changed = is_ready ? ready_.insert(id).second : ready_.erase(id) > 0;
  if (changed) ready_changes_.emplace_back(id, is_ready);
}

std::vector<ClientRecord> Desk::take_changed_records() {
  std::vector<ClientRecord> records;
  for (const ClientId id : changed_) records.push_back(clients_.at(id).record);
  changed_.clear();
  return records;
}

}  // namespace fl
