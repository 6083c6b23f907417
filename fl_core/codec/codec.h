#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "fl_core/base/buffer.h"
#include "fl_core/base/rng.h"
#include "fl_core/config/registry.h"

namespace fl {

/// Turns a delta into bytes and back. Stateless and thread-safe.
class Codec {
 public:
  virtual ~Codec() = default;
  /// Encodes `values`. `rng` is for codecs that round at random.
  virtual Bytes encode(std::span<const float> values, Rng& rng) const = 0;
  /// Decodes exactly `out.size()` floats. The bytes are hostile: throws ProtocolError unless they are a complete,
  /// well-formed encoding of that many floats; never reads past them. Non-finite floats may come out: who adds them checks.
  virtual void decode(std::span<const std::byte> bytes, std::span<float> out) const = 0;
  /// The floats of `bytes` where they stand, for a codec whose encoding is float[count]; empty when it is not, when the
  /// bytes are not a whole encoding of `count` floats, or are not aligned: then decode() says what is the matter.
  virtual std::span<const float> view(std::span<const std::byte>, std::size_t) const { return {}; }
  /// The most bytes that encode() gives for `count` floats; anything longer is refused before decoding.
  virtual std::size_t max_bytes(std::size_t count) const = 0;
  /// The largest relative error of one encoded and decoded normal value; 0 when exact. Part of the codec's contract.
  virtual double relative_error() const = 0;
};

using CodecRegistry = Registry<Codec>;
/// Kind "codec".
CodecRegistry& codecs();

}  // namespace fl
