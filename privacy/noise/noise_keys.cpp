#include "privacy/noise/noise_keys.h"

#include <openssl/err.h>
#include <openssl/rand.h>

#include <string>

#include "fl_core/base/error.h"

namespace fl {

NoiseKey SecureNoiseKeys::key(NoisePurpose, std::uint64_t, std::uint64_t) {
  NoiseKey key;
  if (RAND_priv_bytes(reinterpret_cast<unsigned char*>(key.data()), static_cast<int>(key.size())) != 1) {
    const unsigned long code = ERR_get_error();
    const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
    throw IoError("noise key: OpenSSL's random generator failed (" + std::string(reason == nullptr ? "no reason given" : reason) +
                  "), so nothing is released; check that the system has a source of entropy");
  }
  return key;
}

}  // namespace fl
