#include "fl_core/base/sha256.h"

#include <gtest/gtest.h>

namespace fl {
namespace {

std::string hash(const std::string& text) { return sha256_hex(std::as_bytes(std::span(text))); }

TEST(Sha256, GivesTheVectorsOfFips180) {
  // FIPS 180-2, appendix B.1 and B.2, and the empty message of NIST's CAVP.
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, IsTheSameFedInPieces) {
  Sha256 pieces;
  pieces.add(std::string("a")).add(std::string()).add(std::string("bc"));
  EXPECT_EQ(pieces.finish_hex(), hash("abc"));
}

}  // namespace
}  // namespace fl
