#pragma once

#include <string>

#include "simulations/scratch_folder.h"

namespace fl::test {

/// A folder of its own under the system's temporary folder, removed with all its contents at the end.
class TemporaryFolder : public ScratchFolder {
 public:
  TemporaryFolder() : ScratchFolder("tributary-test") {}
};

/// The message of the fl::Error that `action` throws; empty when it throws none.
template <class Action>
std::string error_of(Action action);

}  // namespace fl::test

#include "fl_core/base/error.h"

template <class Action>
std::string fl::test::error_of(Action action) {
  try {
    action();
  } catch (const fl::Error& error) {
    return error.what();
  }
  return "";
}
