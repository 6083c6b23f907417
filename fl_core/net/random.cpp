#include "fl_core/net/random.h"

#include <openssl/rand.h>

#include <vector>

#include "fl_core/base/error.h"

namespace fl {

std::string random_hex(std::size_t bytes) {
  std::vector<unsigned char> drawn(bytes);
  if (RAND_bytes(drawn.data(), static_cast<int>(bytes)) != 1) throw Error("OpenSSL has no random numbers on this machine");
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : drawn) {
    text += kDigits[byte >> 4U];
    text += kDigits[byte & 15U];
  }
  return text;
}

}  // namespace fl
