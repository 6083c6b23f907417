#include "client/secure_session.h"

#include <algorithm>

#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"

namespace fl {
namespace {

std::string client_text(ClientId client) { return "client " + std::to_string(client) + ": "; }

const char* describe(ExactSumError error) {
  return error == ExactSumError::not_finite ? "the update holds NaN or infinity; lower trainer.learning_rate or set trainer.clip_norm"
                                            : "the update moves a weight by 2^round.update_bound_bits or more; lower trainer.learning_rate, or raise the bound";
}

}  // namespace

SecureSession::SecureSession(SecureSessionParts parts) : parts_(std::move(parts)), session_(session_of(parts_.run)) {}

Message SecureSession::begin(const Task& task, std::span<const float> update, const SecureTotals& totals) {
  end();
  if (masked(task.round)) return refuse(task);
  // Said now, so that the server can go on without this client; encoding again costs less than keeping twice the memory.
  std::vector<std::uint64_t> vector;
  Rng rng(parts_.seed, Purpose::secure_rounding, task.round, parts_.client);
  const ExactSumError error = parts_.vector.fill(update, totals, rng, vector);
  if (error != ExactSumError::none) return encode_failure(task.round, client_text(parts_.client) + describe(error));
  header_ = {task.round, task.model_version, task.fingerprint, 1};
  try {
    enrolment_ = parts_.enrol();
    const SecAggRound round{session_, task.round, Sha256().add(task.weights.span()).finish()};
    protocol_.emplace(parts_.client, round, parts_.plan, parts_.policy, enrolment_->key, peers_,
                      parts_.keys.key(NoisePurpose::secure_aggregation, task.round, parts_.client));
    SecAggBytes body = protocol_->advertise();
    FL_CHECK(body.size() == kAdvertMessageBytes, "an advert has a fixed length");
    body.insert(body.end(), enrolment_->credential.begin(), enrolment_->credential.end());
    update_ = AlignedArray<float>::uninitialised(update.size());
    std::copy(update.begin(), update.end(), update_.data());
    totals_ = totals;
    return reply(header_, std::move(body));
  } catch (const Error& refusal) {  // the plan is below the owner's policy, or the certificate will not do
    end();
    return encode_failure(task.round, client_text(parts_.client) + refusal.what());
  }
}

Message SecureSession::refuse(const Task& task) const {
  return encode_failure(task.round, client_text(parts_.client) + "its update of round " + std::to_string(newest_masked_) +
                                        " was masked already; a second sum would show what is in only one of them");
}

Message SecureSession::answer(const Message& step) {
  const SecureHeader header = parse_secure_header(step);
  if (!protocol_ || header.round != header_.round || header.model_version != header_.model_version || header.fingerprint != header_.fingerprint) {
    end();
    return encode_failure(header.round, client_text(parts_.client) + "it takes no part in this round's secure aggregation (its program was restarted, or it gave up)");
  }
  try {
    return take_step(header, step.body().span());
  } catch (const ProtocolError& refusal) {
    end();
    return encode_failure(header.round, client_text(parts_.client) + refusal.what());
  } catch (...) {
    end();
    throw;
  }
}

Message SecureSession::take_step(const SecureHeader& header, SecAggView body) {
  switch (header.step) {
    case 2: {
      const Envelope envelope = decode_envelope(body);
      for (const auto& [client, credential] : envelope.credentials) peers_.add(client, credential, *enrolment_->judge);
      return reply(header, protocol_->share(envelope.roster));
    }
    case 3: return reply(header, mask(body));
    case 4: return reply(header, protocol_->confirm(body));
    default: {
      Message last = reply(header, protocol_->unmask(body));
      end();
      return last;
    }
  }
}

SecAggBytes SecureSession::mask(SecAggView inbox) {
  std::vector<std::uint64_t> vector;
  Rng rng(parts_.seed, Purpose::secure_rounding, header_.round, parts_.client);
  const ExactSumError error = parts_.vector.fill(update_.span(), totals_, rng, vector);
  FL_CHECK(error == ExactSumError::none, "the update was encoded before");
  update_ = AlignedArray<float>();
  SecAggBytes masked = protocol_->mask(inbox, vector);
  if (parts_.before_masking) parts_.before_masking(header_.round);
  newest_masked_ = header_.round;
  return masked;
}

Message SecureSession::reply(const SecureHeader& header, SecAggBytes body) const {
  return encode_secure(MessageType::secure_answer, header, SharedBuffer::copy_of(body));
}

void SecureSession::end() {
  protocol_.reset();
  peers_.clear();
  update_ = AlignedArray<float>();
}

}  // namespace fl
