#include "aggregator/sampler/sampler.h"

namespace fl {

SamplerRegistry& samplers() {
  static SamplerRegistry registry("sampler");
  return registry;
}

}  // namespace fl
