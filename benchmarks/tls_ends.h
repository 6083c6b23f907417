#pragma once

#include <openssl/ssl.h>

#include <memory>
#include <string>
#include <vector>

#include "fl_core/base/error.h"
#include "fl_core/net/pki.h"
#include "fl_core/net/tls_context.h"
#include "simulations/scratch_folder.h"

namespace fl {

/// Both ends' certificates from an authority in a folder that goes with it.
struct TlsEnds {
  TlsEnds() {
    Authority authority = Authority::create(folder / "ca");
    const std::vector<std::string> hosts = {"localhost"};
    const auto files = [&](const IssuedFiles& issued) {
      return TlsFiles{issued.certificate.string(), issued.key.string(), authority.certificate().string(), authority.revocation_list().string()};
    };
    server = std::make_shared<const TlsContext>(TlsRole::server, files(authority.issue_server("hub", hosts)));
    client = std::make_shared<const TlsContext>(TlsRole::client, files(authority.issue_client("ada")));
  }

  ScratchFolder folder{"tls-ends"};
  std::shared_ptr<const TlsContext> server;
  std::shared_ptr<const TlsContext> client;
};

/// The record layer alone: a client and a server in memory, handshake done; without the mode that frees buffers after each record.
struct TlsMemoryPair {
  explicit TlsMemoryPair(const TlsEnds& ends) : client(SSL_new(ends.client->native())), server(SSL_new(ends.server->native())) {
    SSL_clear_mode(client, SSL_MODE_RELEASE_BUFFERS);
    SSL_clear_mode(server, SSL_MODE_RELEASE_BUFFERS);
    BIO* up = BIO_new(BIO_s_mem());
    BIO* down = BIO_new(BIO_s_mem());
    BIO_up_ref(up);
    BIO_up_ref(down);
    SSL_set_bio(client, down, up);
    SSL_set_bio(server, up, down);
    SSL_set_connect_state(client);
    SSL_set_accept_state(server);
    for (int i = 0; i < 10 && !(SSL_is_init_finished(client) && SSL_is_init_finished(server)); ++i) {
      SSL_do_handshake(client);
      SSL_do_handshake(server);
    }
    FL_CHECK(SSL_is_init_finished(client) && SSL_is_init_finished(server), "the handshake in memory failed");
  }
  ~TlsMemoryPair() {
    SSL_free(client);
    SSL_free(server);
  }
  TlsMemoryPair(const TlsMemoryPair&) = delete;
  TlsMemoryPair& operator=(const TlsMemoryPair&) = delete;

  SSL* client;
  SSL* server;
};

}  // namespace fl
