#pragma once

#include <cstdint>

namespace fl {

/// Which pairs of data sets a promise calls neighbours. A "record" is whatever the promise's unit is: a client or an example.
enum class Adjacency : std::uint8_t {
  add_or_remove_one,  ///< one record more or less
  replace_one,        ///< one record changed into any other: twice the sensitivity of a sum of clipped records
};

/// `count` equal releases of noisy sums, each over records that were sampled anew.
struct PrivacyEvent {
  enum class Kind : std::uint8_t {
    gaussian,           ///< continuous noise, or noise on so fine a grid that it is one
    discrete_gaussian,  ///< sum of `clients` discrete Gaussians (Kairouz, Liu, Steinke 2102.06387)
    skellam,            ///< sum of `clients` Skellams (Agarwal, Kairouz, Liu 2110.04995)
  };
  Kind kind = Kind::gaussian;
  std::uint64_t count = 1;

  /// gaussian: every record takes part independently with this probability (Poisson sampling); 1 means all do.
  double sampling_rate = 1;
  /// gaussian: standard deviation of the noise over the L2 sensitivity for adding or removing one record.
  double noise_multiplier = 0;

  /// The others: bounds in integer units (after scaling and rounding) on one record's L2 and L1 norm.
  double l2_bound = 0;
  double l1_bound = 0;
  double scale = 1;                ///< integers a unit (Skellam's bound needs it)
  double local_stddev = 0;         ///< of one client's integer noise
  std::uint64_t clients = 1;       ///< whose noise is surely in the sum
  std::uint64_t dimension = 1;     ///< coordinates

  static PrivacyEvent gaussian(double sampling_rate, double noise_multiplier, std::uint64_t count = 1) {
    PrivacyEvent event;
    event.sampling_rate = sampling_rate;
    event.noise_multiplier = noise_multiplier;
    event.count = count;
    return event;
  }
};

}  // namespace fl
