#include "simulations/partition/partitioner.h"

namespace fl {

PartitionRegistry& partitions() {
  static PartitionRegistry registry("partition");
  return registry;
}

}  // namespace fl
