#pragma once

#include <memory>

#include "fl_core/config/registry.h"
#include "fl_core/round/types.h"

namespace fl {

enum class Verdict : std::uint8_t { go_on = 0, stop = 1 };

/// Sees every round after it was committed and evaluated, before the next one is committed. Observers never change the model. After a resume
/// they are shown the reports of all earlier rounds first, so their state needs no checkpoint.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual Verdict after_round(const RoundReport& report) = 0;
  /// Whether after_round() may ever say stop: then no round begins before the one before it was evaluated. One that only looks on says false.
  virtual bool may_stop() const { return true; }
};

using ObserverRegistry = Registry<Observer>;
/// Kind "observer".
ObserverRegistry& observers();

}  // namespace fl
