#pragma once

#include "fl_core/config/fields.h"

namespace fl {

/// The option of every mechanism that cuts each client's update to one fixed norm.
struct ClipOptions {
  double clip_norm = 1;
  void fields(Fields& f) { f.number("clip_norm", clip_norm, {1e-6, 1e6}, "L2 norm that every client's update is cut to"); }
};

}  // namespace fl
