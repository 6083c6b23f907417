#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "fl_core/round/types.h"
#include "simulations/simulation.h"

namespace fl::test {

/// The model's hash after each round, from round 0 on, computed from who was accepted in which round and nothing else: every
/// accepted client trains on the model of the round before, and the deltas are added up once each. The experiment's strategy
/// is fedavg with server_learning_rate 1. `max_updates` scales the exact sum, as the run's journal has it.
///
/// It is the bookkeeper of crash tests: an update that was lost, or counted twice, or that belongs to another round or
/// client, gives another hash than the journal's.
std::vector<std::string> recounted_hashes(const Prepared& prepared, const std::vector<RoundReport>& reports, std::uint64_t max_updates);

/// What client `client` honestly answers to a task.
Message honest_answer(const Prepared& prepared, ClientId client, const Message& task);

}  // namespace fl::test
