#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "fl_core/wire/frame.h"

namespace fl::cli {

/// A broken rule: what a client may send after a good hello to have its connection ended.
struct Offence {
  std::string what;
  std::vector<std::byte> bytes;
  const char* section;  ///< of FORMAT.md
};

/// Every rule of a frame's fixed part and of its header, broken once.
std::vector<Offence> offences_of_a_client();

/// A blob that nobody has.
BlobReference strange_blob();

}  // namespace fl::cli
