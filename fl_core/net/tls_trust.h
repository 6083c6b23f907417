#pragma once

#include <openssl/x509_vfy.h>

#include <memory>

#include "fl_core/net/pki_x509.h"
#include "fl_core/net/tls_context.h"

/// What TlsFiles name, loaded and checked, and the rules by which peers are judged with it; inside fl_net only. Errors are
/// ConfigErrors that name key, file and what to do, or IoErrors; OpenSSL's error queue is left empty.
namespace fl::tls {

inline constexpr int kSecurityLevel = 2;  ///< 112 bits: no SHA-1, no RSA below 2048 bits

struct FreeVerification {
  void operator()(X509_STORE_CTX* verification) const { X509_STORE_CTX_free(verification); }
};
using Verification = std::unique_ptr<X509_STORE_CTX, FreeVerification>;

/// The one root that peers must come from, and its revocation list. Immutable; any thread.
class Trust {
 public:
  /// Without `with_list` the list is not read, and nobody counts as revoked.
  Trust(const TlsFiles& files, bool with_list);

  X509_STORE* store() const { return store_.get(); }
  /// Null without one.
  X509_CRL* list() const { return list_.get(); }

  /// Strict checks, the purpose (EKU), the revocation list, no certificate between the peer's and the root. `owner` is what
  /// the certificate has to be for.
  void set_rules(X509_VERIFY_PARAM* rules, TlsRole owner) const;
  /// Judges a certificate by these rules at this moment: the error of what is returned is X509_V_OK, or the reason.
  Verification verify(X509* certificate, TlsRole owner) const;

 private:
  struct FreeStore {
    void operator()(X509_STORE* store) const { X509_STORE_free(store); }
  };
  pki::RevocationList list_;
  std::unique_ptr<X509_STORE, FreeStore> store_;
};

/// Who an end is.
struct Identity {
  pki::Certificate certificate;
  pki::Key key;  ///< fits the certificate
};
Identity load_identity(const TlsFiles& files);

}  // namespace fl::tls
