#include "client/trainer/trainer.h"

namespace fl {

TrainerRegistry& trainers() {
  static TrainerRegistry registry("trainer");
  return registry;
}

}  // namespace fl
