/* An OpenSSL provider with one cipher, computed by Intel's Multi-Buffer Crypto library; in C because OpenSSL asks a provider for tables
   of C functions, and the library's are macros. It does what TLS needs of the cipher, and refuses the rest: the IV has 12 bytes, the tag
   16, and what is authenticated alone comes in one piece. */
#include "cairn_gcm.h"

#if defined(__x86_64__)
#include <intel-ipsec-mb.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 16, IV_BYTES = 12, TAG_BYTES = 16 };

/* Only its table of functions is used, which is not written after it is made: one for all threads. (It also writes the number of its last
   error, of the whole process: always 0.) */
static IMB_MGR *library;

typedef struct {
    /* The library demands an alignment of 16, and does not say so. Its keys for hashing, 240 bytes into the key, begin a cache line. */
    _Alignas(64) uint8_t unused[16];
    struct gcm_key_data key;
    struct gcm_context_data message;
    uint8_t iv[IV_BYTES];
    uint8_t tag[TAG_BYTES];
    unsigned encrypts : 1;
    unsigned has_key : 1;
    unsigned has_iv : 1;  /* that no message was begun with */
    unsigned has_tag : 1; /* of the message that is decrypted next; of the one that was encrypted last */
    unsigned is_begun : 1;
} gcm_cipher;

static void *new_cipher(void *provider) {
    (void)provider;
    gcm_cipher *cipher = aligned_alloc(_Alignof(gcm_cipher), sizeof *cipher);
    if (cipher) memset(cipher, 0, sizeof *cipher);
    return cipher;
}

static void free_cipher(void *context) {
    if (!context) return;
    OPENSSL_cleanse(context, sizeof(gcm_cipher));
    free(context);
}

static int set_parameters(void *context, const OSSL_PARAM parameters[]) {
    gcm_cipher *cipher = context;
    for (const OSSL_PARAM *p = parameters; p && p->key; p++) {
        size_t bytes;
        if (!strcmp(p->key, OSSL_CIPHER_PARAM_AEAD_TAG)) {
            if (cipher->encrypts || p->data_type != OSSL_PARAM_OCTET_STRING || p->data_size != TAG_BYTES || !p->data) return 0;
            memcpy(cipher->tag, p->data, TAG_BYTES);
            cipher->has_tag = 1;
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_AEAD_IVLEN)) {
            if (!OSSL_PARAM_get_size_t(p, &bytes) || bytes != IV_BYTES) return 0;
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_KEYLEN)) {
            if (!OSSL_PARAM_get_size_t(p, &bytes) || bytes != KEY_BYTES) return 0;
        }
    }
    return 1;
}

static int begin(
    gcm_cipher *cipher, unsigned encrypts, const uint8_t *key, size_t key_bytes, const uint8_t *iv, size_t iv_bytes,
    const OSSL_PARAM parameters[]
) {
    if ((key && key_bytes != KEY_BYTES) || (iv && iv_bytes != IV_BYTES)) return 0;
    cipher->encrypts = encrypts;
    cipher->is_begun = cipher->has_tag = 0;
    if (key) {
        IMB_AES128_GCM_PRE(library, key, &cipher->key);
        cipher->has_key = 1;
    }
    if (iv) {
        memcpy(cipher->iv, iv, IV_BYTES);
        cipher->has_iv = 1;
    }
    return set_parameters(cipher, parameters);
}

static int begin_encryption(
    void *context, const uint8_t *key, size_t key_bytes, const uint8_t *iv, size_t iv_bytes, const OSSL_PARAM parameters[]
) {
    return begin(context, 1, key, key_bytes, iv, iv_bytes, parameters);
}

static int begin_decryption(
    void *context, const uint8_t *key, size_t key_bytes, const uint8_t *iv, size_t iv_bytes, const OSSL_PARAM parameters[]
) {
    return begin(context, 0, key, key_bytes, iv, iv_bytes, parameters);
}

static int begin_message(gcm_cipher *cipher, const uint8_t *authenticated, size_t bytes) {
    if (!cipher->has_key || !cipher->has_iv || cipher->is_begun) return 0;
    IMB_AES128_GCM_INIT(library, &cipher->key, &cipher->message, cipher->iv, authenticated, bytes);
    cipher->is_begun = 1;
    cipher->has_iv = 0;
    return 1;
}

/* Without `out`, `in` is authenticated alone. */
static int update(void *context, uint8_t *out, size_t *written, size_t room, const uint8_t *in, size_t bytes) {
    gcm_cipher *cipher = context;
    *written = 0;
    if (!out) return begin_message(cipher, in, bytes) ? (*written = bytes, 1) : 0;
    if (room < bytes || (!cipher->is_begun && !begin_message(cipher, NULL, 0))) return 0;
    if (cipher->encrypts) {
        IMB_AES128_GCM_ENC_UPDATE(library, &cipher->key, &cipher->message, out, in, bytes);
    } else {
        IMB_AES128_GCM_DEC_UPDATE(library, &cipher->key, &cipher->message, out, in, bytes);
    }
    *written = bytes;
    return 1;
}

static int finish(void *context, uint8_t *out, size_t *written, size_t room) {
    (void)out, (void)room;
    gcm_cipher *cipher = context;
    uint8_t tag[TAG_BYTES];
    *written = 0;
    if ((!cipher->is_begun && !begin_message(cipher, NULL, 0)) || (!cipher->encrypts && !cipher->has_tag)) return 0;
    cipher->is_begun = 0;
    if (cipher->encrypts) {
        IMB_AES128_GCM_ENC_FINALIZE(library, &cipher->key, &cipher->message, cipher->tag, TAG_BYTES);
        cipher->has_tag = 1;
        return 1;
    }
    IMB_AES128_GCM_DEC_FINALIZE(library, &cipher->key, &cipher->message, tag, TAG_BYTES);
    cipher->has_tag = 0;
    return CRYPTO_memcmp(tag, cipher->tag, TAG_BYTES) == 0;
}

static int tell_constants(OSSL_PARAM parameters[]) {
    for (OSSL_PARAM *p = parameters; p && p->key; p++) {
        int told = 1;
        if (!strcmp(p->key, OSSL_CIPHER_PARAM_MODE)) {
            told = OSSL_PARAM_set_uint(p, EVP_CIPH_GCM_MODE);
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_KEYLEN)) {
            told = OSSL_PARAM_set_size_t(p, KEY_BYTES);
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_IVLEN)) {
            told = OSSL_PARAM_set_size_t(p, IV_BYTES);
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_BLOCK_SIZE)) {
            told = OSSL_PARAM_set_size_t(p, 1);
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_AEAD) || !strcmp(p->key, OSSL_CIPHER_PARAM_CUSTOM_IV)) {
            told = OSSL_PARAM_set_int(p, 1);
        }
        if (!told) return 0;
    }
    return 1;
}

static int tell(void *context, OSSL_PARAM parameters[]) {
    gcm_cipher *cipher = context;
    for (OSSL_PARAM *p = parameters; p && p->key; p++) {
        int told = 1;
        if (!strcmp(p->key, OSSL_CIPHER_PARAM_AEAD_TAG)) {
            if (!cipher->encrypts || !cipher->has_tag || p->data_size > TAG_BYTES) return 0;
            told = OSSL_PARAM_set_octet_string(p, cipher->tag, p->data_size);
        } else if (!strcmp(p->key, OSSL_CIPHER_PARAM_AEAD_TAGLEN)) {
            told = OSSL_PARAM_set_size_t(p, TAG_BYTES);
        }
        if (!told) return 0;
    }
    return tell_constants(parameters);
}

static const OSSL_PARAM *constants(void *provider) {
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_uint(OSSL_CIPHER_PARAM_MODE, NULL),      OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),   OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_BLOCK_SIZE, NULL),
        OSSL_PARAM_int(OSSL_CIPHER_PARAM_AEAD, NULL),       OSSL_PARAM_int(OSSL_CIPHER_PARAM_CUSTOM_IV, NULL),
        OSSL_PARAM_END};
    (void)provider;
    return known;
}

static const OSSL_PARAM *told_parameters(void *context, void *provider) {
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL), OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_IVLEN, NULL),
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_TAGLEN, NULL), OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 0),
        OSSL_PARAM_END};
    (void)context, (void)provider;
    return known;
}

static const OSSL_PARAM *set_parameter_names(void *context, void *provider) {
    static const OSSL_PARAM known[] = {
        OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_KEYLEN, NULL), OSSL_PARAM_size_t(OSSL_CIPHER_PARAM_AEAD_IVLEN, NULL),
        OSSL_PARAM_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, 0), OSSL_PARAM_END};
    (void)context, (void)provider;
    return known;
}

static const OSSL_DISPATCH cipher_functions[] = {
    {OSSL_FUNC_CIPHER_NEWCTX, (void (*)(void))new_cipher},
    {OSSL_FUNC_CIPHER_FREECTX, (void (*)(void))free_cipher},
    {OSSL_FUNC_CIPHER_ENCRYPT_INIT, (void (*)(void))begin_encryption},
    {OSSL_FUNC_CIPHER_DECRYPT_INIT, (void (*)(void))begin_decryption},
    {OSSL_FUNC_CIPHER_UPDATE, (void (*)(void))update},
    {OSSL_FUNC_CIPHER_FINAL, (void (*)(void))finish},
    {OSSL_FUNC_CIPHER_GET_PARAMS, (void (*)(void))tell_constants},
    {OSSL_FUNC_CIPHER_GET_CTX_PARAMS, (void (*)(void))tell},
    {OSSL_FUNC_CIPHER_SET_CTX_PARAMS, (void (*)(void))set_parameters},
    {OSSL_FUNC_CIPHER_GETTABLE_PARAMS, (void (*)(void))constants},
    {OSSL_FUNC_CIPHER_GETTABLE_CTX_PARAMS, (void (*)(void))told_parameters},
    {OSSL_FUNC_CIPHER_SETTABLE_CTX_PARAMS, (void (*)(void))set_parameter_names},
    {0, NULL}};

static const OSSL_ALGORITHM *operations(void *provider, int operation, int *no_cache) {
    static const OSSL_ALGORITHM ciphers[] = {
        {"AES-128-GCM:id-aes128-GCM:2.16.840.1.101.3.4.1.6", "provider=cairn-gcm", cipher_functions, "by vector AES"},
        {NULL, NULL, NULL, NULL}};
    (void)provider;
    *no_cache = 0;
    return operation == OSSL_OP_CIPHER ? ciphers : NULL;
}

static int begin_provider(const OSSL_CORE_HANDLE *core, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out, void **provider) {
    static const OSSL_DISPATCH functions[] = {{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))operations}, {0, NULL}};
    (void)core, (void)in;
    *out = functions;
    *provider = library;
    return 1;
}

/* Whether a provider is none that somebody configured for a reason: approved by FIPS 140, keys in hardware. */
static int is_usual(OSSL_PROVIDER *provider, void *nothing) {
    (void)nothing;
    const char *name = OSSL_PROVIDER_get0_name(provider);
    return !strcmp(name, "default") || !strcmp(name, "legacy") || !strcmp(name, "base");
}

OSSL_LIB_CTX *cairn_gcm_library(void) {
    const uint64_t wanted = IMB_FEATURE_AVX512_SKX | IMB_FEATURE_VAES | IMB_FEATURE_VPCLMULQDQ;
    OSSL_LIB_CTX *context = NULL;
    /* The library does not ask whether the system keeps the vectors' registers; this does. */
    if (library || !__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return NULL;
    if (EVP_default_properties_is_fips_enabled(NULL) || !OSSL_PROVIDER_do_all(NULL, is_usual, NULL)) return NULL;
    library = alloc_mb_mgr(0);
    if (library && (library->features & wanted) == wanted) {
        init_mb_mgr_avx512(library);
        if (imb_get_errno(library) == 0) context = OSSL_LIB_CTX_new();
        if (context && OSSL_PROVIDER_load(context, "default") && OSSL_PROVIDER_add_builtin(context, "cairn-gcm", begin_provider) &&
            OSSL_PROVIDER_load(context, "cairn-gcm") && EVP_set_default_properties(context, "?provider=cairn-gcm"))
            return context;
    }
    /* Nobody is told why, so nobody else shall be. */
    ERR_clear_error();
    OSSL_LIB_CTX_free(context);
    if (library) free_mb_mgr(library);
    library = NULL;
    return NULL;
}
#else
OSSL_LIB_CTX *cairn_gcm_library(void) { return NULL; }
#endif
