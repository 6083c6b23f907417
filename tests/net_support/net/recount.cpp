#include "tests/net_support/net/recount.h"

#include <algorithm>

#include "client/session.h"
#include "fl_core/base/error.h"
#include "fl_core/base/sha256.h"
#include "fl_core/codec/codec.h"
#include "fl_core/params/exact_sum.h"
#include "fl_core/params/kernels.h"
#include "fl_core/wire/message.h"
#include "fl_core/wire/tensors.h"

namespace fl::test {
namespace {

std::uint64_t seed_of(const Prepared& prepared) { return static_cast<std::uint64_t>(prepared.experiment.seed); }

}  // namespace

Message honest_answer(const Prepared& prepared, ClientId client, const Message& task) {
  const Experiment& experiment = prepared.experiment;
  const auto model = prepared.model->make(seed_of(prepared));
  const auto trainer = trainers().create(experiment.trainer, "trainer");
  const auto codec = codecs().create(experiment.codec, "codec");
  const ClientKit kit{*model, *trainer, *codec, experiment.codec.at("name"), *prepared.data.train, seed_of(prepared), experiment.evaluation.client_holdout,
                      experiment.round.weighting == "uniform", experiment.round.weight_cap};
  ClientSession session(kit, client, prepared.partition->shard(client));
  auto answer = session.handle(task, [] { return false; });
  FL_CHECK(answer.has_value(), "an honest client answers");
  return std::move(*answer);
}

std::vector<std::string> recounted_hashes(const Prepared& prepared, const std::vector<RoundReport>& reports, std::uint64_t max_updates) {
  const auto model = prepared.model->make(seed_of(prepared));
  const SharedLayout layout = model->layout();
  const auto codec = codecs().create(prepared.experiment.codec, "codec");
  ParameterVector global(layout);
  std::copy(model->weights().begin(), model->weights().end(), global.values().begin());
  const auto hash = [&] { return sha256_hex(write_safetensors(*layout, global.values()).span()); };
  std::vector<std::string> hashes = {hash()};
  std::uint32_t version = 0;
  std::vector<float> delta(layout->size());
  for (const RoundReport& report : reports) {
    ExactSum sum(layout->size(), max_updates, static_cast<int>(prepared.experiment.round.update_bound_bits));
    const Message task = encode_task({TaskKind::train, report.round, version, layout->fingerprint(), SharedBuffer::copy_of(global.bytes())});
    for (const ClientOutcome& member : report.cohort) {
      if (member.outcome != Outcome::accepted) continue;
      const Message answer = honest_answer(prepared, member.client, task);
      codec->decode(answer.body().span(), delta);
      FL_CHECK(sum.add(delta, parse_update_header(answer).weight) == ExactSumError::none, "an honest update");
    }
    if (!report.abandoned) {
      sum.mean(delta);
      kernels::axpy(1, delta, global.values());
      ++version;
    }
    hashes.push_back(hash());
  }
  return hashes;
}

}  // namespace fl::test
