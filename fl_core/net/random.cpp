#include "fl_core/net/random.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include <span>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/base/hex.h"

namespace fl {

std::string random_hex(std::size_t bytes) {
  std::vector<unsigned char> drawn(bytes);
  if (RAND_priv_bytes(drawn.data(), static_cast<int>(bytes)) != 1) throw Error("OpenSSL has no random numbers on this machine");
  std::string text = to_hex(std::as_bytes(std::span(drawn)));
  OPENSSL_cleanse(drawn.data(), drawn.size());
  return text;
}

}  // namespace fl
