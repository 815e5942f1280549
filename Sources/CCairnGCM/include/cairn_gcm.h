#ifndef CAIRN_GCM_H
#define CAIRN_GCM_H
#include <openssl/types.h>
/* AES-128-GCM (NIST SP 800-38D) for OpenSSL, by the vector AES of the processors that have it: OpenSSL 3.0 encrypts a block at a time. */

/* A library context with OpenSSL's default provider and "cairn-gcm", which it prefers: one of its own, for whoever else uses OpenSSL in
   this process may want what ours refuses. NULL, which stands for the process's own context, where the processor lacks the instructions,
   or OpenSSL is configured with other providers than its own. To be called once. */
OSSL_LIB_CTX *cairn_gcm_library(void);
#endif
