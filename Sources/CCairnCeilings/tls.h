#ifndef CAIRN_CEILINGS_TLS_H
#define CAIRN_CEILINGS_TLS_H
#include <openssl/ssl.h>

// TLS 1.3 with AES-128-GCM, no tickets, a certificate for nobody: only records are measured. 1, or 0 where that failed.
int cairn_tls_contexts(SSL_CTX **client, SSL_CTX **server);

// Two ends of a TCP connection over loopback, the client's first. 1, or 0.
int cairn_tls_connected(int sockets[2]);
#endif
