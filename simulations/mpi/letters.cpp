#include "simulations/mpi/letters.h"

#include <new>

namespace fl {
namespace {

constexpr std::uint64_t kShared = 0;
constexpr std::uint64_t kOwn = 1;

template <class E>
std::exception_ptr as(const std::string& text) {
  return std::make_exception_ptr(E(text));
}

std::exception_ptr make_error(ExitCode code, const std::string& text) {
  switch (code) {
    case ExitCode::config: return as<ConfigError>(text);
    case ExitCode::io: return as<IoError>(text);
    case ExitCode::training: return as<TrainingError>(text);
    case ExitCode::budget: return as<BudgetExhausted>(text);
    case ExitCode::interrupted: return as<Interrupted>(text);
    default: return as<Error>(text);
  }
}

std::pair<ExitCode, std::string> describe(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return {e.exit_code(), e.what()};
  } catch (const std::bad_alloc&) {
    return {ExitCode::io, "out of memory; use fewer --workers, a smaller model or a smaller batch"};
  } catch (const std::exception& e) {
    return {ExitCode::bug, std::string("unexpected error: ") + e.what()};
  }
}

SharedBuffer copy(std::span<const std::byte> bytes) { return SharedBuffer::copy_of(bytes); }

std::vector<std::int64_t> counts(LetterReader& reader) {
  const auto bytes = reader.bytes();
  std::vector<std::int64_t> values(bytes.size() / sizeof(std::int64_t));
  if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(std::int64_t));
  return values;
}

}  // namespace

std::exception_ptr error_with(const std::string& where, const std::exception_ptr& error) {
  const auto [code, text] = describe(error);
  return make_error(code, where + ": " + text);
}

LetterWriter& LetterWriter::message(const Message& message, bool with_body) {
  number(static_cast<std::uint64_t>(message.type())).number(message.round()).bytes(message.header().span());
  number(with_body ? kOwn : kShared);
  return with_body ? bytes(message.body().span()) : *this;
}

Message LetterReader::message(const SharedBuffer& shared) {
  const auto type = static_cast<MessageType>(number());
  const auto round = static_cast<std::uint32_t>(number());
  SharedBuffer header = copy(bytes());
  return {type, round, std::move(header), number() == kShared ? shared : copy(bytes())};
}

LetterWriter& LetterWriter::result(std::uint64_t ticket, const JobResult& result) {
  number(ticket).number(result.error ? 1 : 0);
  if (result.error) return error(result.error);
  number(result.answer ? 1 : 0).number(result.summed_bytes ? 1 : 0).number(result.summed_bytes.value_or(0));
  return result.answer ? message(*result.answer, true) : *this;
}

std::pair<std::uint64_t, JobResult> LetterReader::result() {
  JobResult result;
  const std::uint64_t ticket = number();
  if (number() != 0) {
    result.error = error();
    return {ticket, std::move(result)};
  }
  const bool answered = number() != 0;
  const bool summed = number() != 0;
  const std::uint64_t bytes = number();
  if (summed) result.summed_bytes = bytes;
  if (answered) result.answer = message({});
  return {ticket, std::move(result)};
}

LetterWriter& LetterWriter::evaluation(const Evaluation& sums) {
  return number(std::bit_cast<std::uint64_t>(sums.loss_units)).number(sums.finite ? 1 : 0).bytes(std::as_bytes(std::span(sums.correct))).bytes(std::as_bytes(std::span(sums.examples)));
}

Evaluation LetterReader::evaluation() {
  Evaluation sums;
  sums.loss_units = std::bit_cast<std::int64_t>(number());
  sums.finite = number() != 0;
  sums.correct = counts(*this);
  sums.examples = counts(*this);
  return sums;
}

LetterWriter& LetterWriter::error(const std::exception_ptr& error) {
  const auto [code, message] = describe(error);
  return number(static_cast<std::uint64_t>(code)).text(message);
}

std::exception_ptr LetterReader::error() {
  const auto code = static_cast<ExitCode>(number());
  return make_error(code, text());
}

}  // namespace fl
