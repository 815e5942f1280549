#ifndef CAIRN_OPENSSL_SHIM_H
#define CAIRN_OPENSSL_SHIM_H
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/err.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <openssl/pem.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

// Function-like macros, which Swift cannot see: the TLS session's.
static inline int cairn_ssl_ctx_tls13_only(SSL_CTX *c) {
    return SSL_CTX_set_min_proto_version(c, TLS1_3_VERSION) && SSL_CTX_set_max_proto_version(c, TLS1_3_VERSION);
}
static inline void cairn_ssl_ctx_set_mode(SSL_CTX *c, long mode) { SSL_CTX_set_mode(c, mode); }
static inline void cairn_ssl_set_mode(SSL *s, long mode) { SSL_set_mode(s, mode); }
static inline void cairn_ssl_clear_mode(SSL *s, long mode) { SSL_clear_mode(s, mode); }
static inline void cairn_ssl_ctx_no_session_cache(SSL_CTX *c) {
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
}
static inline int cairn_ssl_set_server_name(SSL *s, const char *name) { return (int)SSL_set_tlsext_host_name(s, name); }
static inline void cairn_bio_retry_read(BIO *b) { BIO_set_retry_read(b); }
static inline void cairn_bio_retry_write(BIO *b) { BIO_set_retry_write(b); }
static inline void cairn_bio_clear_retry(BIO *b) { BIO_clear_retry_flags(b); }
// XN_FLAG_RFC2253 is a macro made of macros.
static inline int cairn_print_name(BIO *b, const X509_NAME *n) { return X509_NAME_print_ex(b, n, 0, XN_FLAG_RFC2253); }
// Typed stacks are macros as well.
static inline int cairn_general_names_count(const GENERAL_NAMES *n) { return sk_GENERAL_NAME_num(n); }
static inline GENERAL_NAME *cairn_general_names_at(const GENERAL_NAMES *n, int i) { return sk_GENERAL_NAME_value(n, i); }
static inline int cairn_x509s_count(const STACK_OF(X509) *s) { return s ? sk_X509_num(s) : 0; }
static inline X509 *cairn_x509s_at(const STACK_OF(X509) *s, int i) { return sk_X509_value(s, i); }
static inline STACK_OF(X509) *cairn_x509s_new(void) { return sk_X509_new_null(); }
static inline int cairn_x509s_push(STACK_OF(X509) *s, X509 *x) { return sk_X509_push(s, x); }
static inline void cairn_x509s_free(STACK_OF(X509) *s) { sk_X509_pop_free(s, X509_free); }
// The name's text lies in an anonymous union.
static inline const ASN1_STRING *cairn_general_name_uri(const GENERAL_NAME *n) {
    return n->type == GEN_URI ? n->d.uniformResourceIdentifier : NULL;
}
#endif
