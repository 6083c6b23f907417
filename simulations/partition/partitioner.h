#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "fl_core/config/registry.h"
#include "fl_core/ml/dataset.h"
#include "fl_core/round/types.h"

namespace fl {

/// Which examples belong to which client. A client costs nothing until its shard is asked for.
class Partition {
 public:
  virtual ~Partition() = default;
  virtual std::uint64_t clients() const = 0;
  /// The client's examples as indices into the training set, never empty, the same for every call. Thread-safe.
  virtual std::vector<std::uint32_t> shard(ClientId client) const = 0;
  /// shard(client).size(), cheaply.
  virtual std::size_t shard_size(ClientId client) const = 0;
  /// Whether every example belongs to exactly one client.
  virtual bool disjoint() const = 0;
};

struct PartitionContext {
  std::shared_ptr<const Dataset> data;
  std::uint64_t seed = 0;
  std::string path;  ///< JSON path of the component, for errors
};

using PartitionRegistry = Registry<Partition, const PartitionContext&>;
/// Kind "partition".
PartitionRegistry& partitions();

}  // namespace fl
