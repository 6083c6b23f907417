#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "privacy/accounting/accountant.h"

namespace fl::test {

/// tests/data/privacy_vectors.json: numbers of other projects' accountants with their sources. Read once.
const nlohmann::json& privacy_vectors();

/// One entry of "vectors". Numbers that are null there are NaN here.
struct Vector {
  std::string id;
  std::string kind;        ///< forward, delta_for_epsilon, calibrate_sigma, …
  std::string accountant;  ///< rdp, pld, prv_upper, …
  std::string mechanism;
  std::string
      adjacency;  ///< add_or_remove_one, replace_one; add, remove: one direction; replace_special: by the zero record
  double q = 0;
  double sigma = 0;
  double steps = 0;
  double delta = 0;
  double epsilon = 0;
  double tolerance = 0;
  nlohmann::json params;

  /// The one event that it describes. REQUIRES: q, sigma and steps are numbers.
  PrivacyEvent event() const { return PrivacyEvent::gaussian(q, sigma, static_cast<std::uint64_t>(steps)); }
  /// params.phases, or the one event.
  std::vector<PrivacyEvent> events() const;
};

/// All vectors of a kind and an accountant (one of those in handled_vectors), in the order of the file.
std::vector<Vector> vectors_of(const std::string& kind, const std::string& accountant);

/// Who tests what: (kind, accountant) and the test that goes through all its vectors. A pair that is not here fails a
/// test.
struct HandledVectors {
  const char* kind;
  const char* accountant;
  const char* test;
};
const std::vector<HandledVectors>& handled_vectors();

}  // namespace fl::test
