#ifndef CAIRN_OPENSSL_PKI_H
#define CAIRN_OPENSSL_PKI_H
#include <openssl/x509.h>

/* Swift cannot see XN_FLAG_RFC2253, a macro made of macros. Bytes above 127 are not escaped: UTF-8 stays readable. */
static inline unsigned long cairn_x509_name_flags(void) {
    return XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB;
}
#endif
