// The half of ClientLink that moves blobs: bodies of tasks in, answers out.
#include <algorithm>

#include "client/net/client_link.h"
#include "fl_core/base/error.h"
#include "fl_core/base/human.h"
#include "fl_core/wire/limits.h"

namespace fl {
namespace {

ClientEvent sent_event(const StoredAnswer& answer) {
  return ClientEvent("sent", "round " + std::to_string(answer.round) + ": sent " + human_bytes(static_cast<double>(answer.header.size() + answer.body.size_bytes)) + ", waiting",
                     {{"round", answer.round}, {"bytes", answer.header.size() + answer.body.size_bytes}});
}

}  // namespace

void ClientLink::on_blob_opened(const std::shared_ptr<PartialBlob>& blob) {
  if (work_.empty() || state_ != State::live) return;
  Work& work = work_.front();
  if (work.stage != Work::Stage::opening || work.blob != blob->reference()) return;
  const std::uint64_t held = blob->received.load();
  if (held == work.blob.size_bytes) {
    work.stage = Work::Stage::checking;
    effects_.blob_grew(blob);
    return;
  }
  work.stage = Work::Stage::fetching;
  incoming_ = Incoming{blob, next_request_++};
  silent_beats_ = 0;
  effects_.note(ClientEvent("fetching", "round " + std::to_string(work.head.round) + ": fetching " + human_bytes(static_cast<double>(work.blob.size_bytes - held)),
                            {{"round", work.head.round}, {"bytes", work.blob.size_bytes - held}, {"offset", held}}));
  Fetch fetch;
  fetch.blob = work.blob;
  fetch.offset = held;
  effects_.send(encode(fetch, incoming_->request));
}

ChunkTarget ClientLink::chunk_target(const FrameHeader& head, std::uint64_t offset) {
  if (state_ != State::live || ended_) throw ProtocolError("the server sent a chunk where it does not belong");
  if (incoming_ && incoming_->request == head.request) {
    const std::uint64_t held = incoming_->blob->received.load();
    if (offset != held || head.body_bytes > incoming_->blob->reference().size_bytes - held) {
      throw ProtocolError("a chunk of " + std::to_string(head.body_bytes) + " bytes at " + std::to_string(offset) + ", expected the blob's bytes from " + std::to_string(held) +
                          " to " + std::to_string(incoming_->blob->reference().size_bytes));
    }
    return {head.request, incoming_->blob, incoming_->blob->bytes().subspan(static_cast<std::size_t>(held), head.body_bytes)};
  }
  const auto abandoned = abandoned_.find(head.request);
  if (abandoned == abandoned_.end() || abandoned->second < head.body_bytes) {
    throw ProtocolError("a chunk that nobody asked for (request " + std::to_string(head.request) + ")");
  }
  abandoned->second -= head.body_bytes;
  if (abandoned->second == 0) abandoned_.erase(abandoned);
  return {head.request, nullptr, {}};
}

void ClientLink::on_chunk(const ChunkTarget& target) {
  if (!target.blob) return;
  if (!incoming_ || incoming_->request != target.request) {
    // Given up while these bytes were on their way: the next fetch asks for them again.
    const auto abandoned = abandoned_.find(target.request);
    if (abandoned == abandoned_.end()) return;
    abandoned->second -= std::min<std::uint64_t>(abandoned->second, target.bytes.size());
    if (abandoned->second == 0) abandoned_.erase(abandoned);
    return;
  }
  silent_beats_ = 0;
  const std::uint64_t held = target.blob->received.load() + target.bytes.size();
  target.blob->received.store(held);
  if (held == target.blob->reference().size_bytes) {
    work_.front().stage = Work::Stage::checking;
    incoming_.reset();
  }
  effects_.blob_grew(target.blob);
}

void ClientLink::on_blob_ready(const BlobReference& reference, const SharedBuffer& bytes) {
  if (work_.empty()) return;
  Work& work = work_.front();
  if ((work.stage != Work::Stage::opening && work.stage != Work::Stage::checking) || work.blob != reference) return;
  work.body = bytes;
  run_task(work);
}

void ClientLink::on_blob_wrong(const BlobReference& reference) {
  if (work_.empty()) return;
  Work& work = work_.front();
  if (work.stage != Work::Stage::checking || work.blob != reference) return;
  if (work.fetched_again) throw ProtocolError("the bytes that the server sent do not have the hash " + reference.hex());
  // A part from an earlier run may be the culprit; the second attempt begins at the first byte.
  work.fetched_again = true;
  work.stage = Work::Stage::opening;
  effects_.note(ClientEvent("warning", "what was fetched is damaged; fetching it again"));
  effects_.open_blob(reference, work.secure_step == 0);
}

void ClientLink::on_blob_refused(const BlobReference& reference, const std::string& why) {
  if (work_.empty() || work_.front().stage != Work::Stage::opening || work_.front().blob != reference) return;
  refuse(work_.front(), why);
  work_.pop_front();
  advance();
}

ClientLink::Answer* ClientLink::find_answer(const std::string& key) {
  const auto found = std::find_if(answers_.begin(), answers_.end(), [&](const Answer& one) { return one.stored.key == key; });
  return found == answers_.end() ? nullptr : &*found;
}

void ClientLink::forget(std::size_t index) {
  if (!answers_[index].in_memory) effects_.forget_answer(answers_[index].stored.key);
  answers_.erase(answers_.begin() + static_cast<std::ptrdiff_t>(index));
}

/// Has the answer offered once it is on disk, or, where it must not be there, once its hash is known.
void ClientLink::keep(Answer& answer) {
  if (!answer.in_memory) return effects_.keep_answer(answer.stored, answer.body);
  if (answer.body.size() > limits::kInlineBytes) return effects_.hash_answer(answer.stored, answer.body);
  answer.stored.body.size_bytes = answer.body.size();
  answer.kept = true;
  if (answer.bound) offer(answer);
}

void ClientLink::on_answer_kept(const StoredAnswer& stored) {
  Answer* answer = find_answer(stored.key);
  if (answer == nullptr || answer->kept) return;
  answer->kept = true;
  answer->stored.body = stored.body;
  if (answer->bound) offer(*answer);
}

void ClientLink::offer(Answer& answer) {
  if (state_ != State::live || answer.offered) return;
  const StoredAnswer& stored = answer.stored;
  const bool blob = stored.body.size_bytes > limits::kInlineBytes;
  if (!blob && !answer.body_held && stored.body.size_bytes != 0) {
    if (!answer.loading) effects_.load_body(stored);
    answer.loading = true;
    return;
  }
  answer.offered = true;
  const Message message(stored.type, stored.round, stored.header, blob ? SharedBuffer() : answer.body);
  effects_.send(blob ? frame_of(message, stored.request, stored.body) : frame_of(message, stored.request));
  if (!blob) effects_.note(sent_event(stored));
}

void ClientLink::on_body_loaded(const std::string& key, const SharedBuffer& body) {
  Answer* answer = find_answer(key);
  if (answer == nullptr) return;
  answer->loading = false;
  answer->body_held = true;
  answer->body = body;
  if (answer->bound) offer(*answer);
}

void ClientLink::on_body_lost(const std::string& key, const std::string& why) {
  Answer* answer = find_answer(key);
  if (answer == nullptr) return;
  effects_.note(ClientEvent("warning", "round " + std::to_string(answer->stored.round) + ": the answer is lost: " + why));
  if (answer->bound && state_ == State::live) {
    effects_.send(frame_of(encode_failure(answer->stored.round, "the stored answer is damaged"), answer->stored.request));
  }
  answers_.erase(answers_.begin() + (answer - answers_.data()));
}

void ClientLink::on_grant(const Frame& frame) {
  const std::uint64_t offset = parse_grant(frame);
  for (Answer& answer : answers_) {
    if (!answer.bound || !answer.offered || answer.stored.request != frame.head.request) continue;
    const std::uint64_t size = answer.stored.body.size_bytes;
    if (size <= limits::kInlineBytes || offset > size) break;
    answer.upload.reset();
    if (offset == size) return;
    answer.upload = offset;
    if (!answer.body_held && !answer.loading) {
      answer.loading = true;
      effects_.load_body(answer.stored);
    }
    return;
  }
  throw ProtocolError("the server grants " + std::to_string(offset) + " of an answer that was not offered (request " + std::to_string(frame.head.request) + ")");
}

std::optional<Frame> ClientLink::next_chunk() {
  if (state_ != State::live) return std::nullopt;
  for (Answer& answer : answers_) {
    if (!answer.upload || !answer.body_held) continue;
    const std::uint64_t offset = *answer.upload;
    const std::uint64_t left = answer.stored.body.size_bytes - offset;
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(kUploadChunk, left));
    answer.upload = offset + size;
    if (size == left) {
      answer.upload.reset();
      effects_.note(sent_event(answer.stored));
    }
    return encode_chunk(answer.stored.request, offset, answer.body.slice(static_cast<std::size_t>(offset), size));
  }
  return std::nullopt;
}

void ClientLink::on_receipt(const Frame& frame) {
  const Receipt receipt = parse_receipt(frame);
  const std::uint32_t round = frame.head.round;
  const std::string outcome = outcome_name(receipt.outcome);
  const auto settled = [&] {
    const bool counted = receipt.outcome == Outcome::accepted;
    effects_.note(ClientEvent("settled", "round " + std::to_string(round) + (counted ? ": counted" : ": not counted (" + outcome + ")"), {{"round", round}, {"outcome", outcome}}));
  };
  for (std::size_t i = 0; i < answers_.size(); ++i) {
    const Answer& answer = answers_[i];
    // Unbound: delivered in an earlier connection, settled while this client was away.
    if (answer.stored.request != frame.head.request || answer.stored.round != round) continue;
    // That a step was taken says nothing of what becomes of the round.
    const bool silent = answer.secure_step != 0 && answer.secure_step < kSecureSteps && receipt.outcome == Outcome::accepted;
    forget(i);
    if (!silent) settled();
    return;
  }
  for (auto work = work_.begin(); work != work_.end(); ++work) {
    if (!work->bound || work->request != frame.head.request) continue;
    withdraw(work);
    settled();
    return advance();
  }
  // Else it settles a task that was answered with `failed`.
}

}  // namespace fl
