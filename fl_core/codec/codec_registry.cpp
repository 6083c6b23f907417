#include "fl_core/codec/codec.h"

namespace fl {

CodecRegistry& codecs() {
  static CodecRegistry registry("codec");
  return registry;
}

}  // namespace fl
