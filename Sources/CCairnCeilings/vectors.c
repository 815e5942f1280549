// The best that this processor can do, by Intel's Multi-Buffer Crypto library: messages side by side, and AES by vectors.
#include "common.h"

#if defined(__x86_64__)
#include "tls.h"
#include <intel-ipsec-mb.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sys/socket.h>

// NULL where the processor has no vectors that are worth it.
static IMB_MGR *new_manager(void) {
    IMB_MGR *manager = alloc_mb_mgr(0);
    if (!manager) return NULL;
    // The library does not ask whether the system keeps the vectors' registers; the compiler's question does.
    const int avx2 = __builtin_cpu_supports("avx2") != 0;
    const int avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       (manager->features & IMB_FEATURE_AVX512_SKX) == IMB_FEATURE_AVX512_SKX;
    if (avx512) init_mb_mgr_avx512(manager);
    else if (avx2) init_mb_mgr_avx2(manager);
    // What else it needs it looks for itself.
    if ((avx512 || avx2) && imb_get_errno(manager) == 0) return manager;
    free_mb_mgr(manager);
    return NULL;
}

int cairn_ceiling_has_vectors(void) {
    IMB_MGR *manager = new_manager();
    if (manager) free_mb_mgr(manager);
    return manager != NULL;
}

// SHA-256 of many messages

enum { MESSAGES = 16, DIGEST = 32 };

// How many of the messages were hashed.
static int hash_all(IMB_MGR *manager, const uint8_t *data, size_t block, uint8_t digests[MESSAGES][DIGEST]) {
    int done = 0;
    IMB_JOB *job;
    for (int number = 0; number < MESSAGES; number++) {
        job = IMB_GET_NEXT_JOB(manager);
        memset(job, 0, sizeof *job);
        job->cipher_mode = IMB_CIPHER_NULL;
        job->cipher_direction = IMB_DIR_ENCRYPT;
        job->chain_order = IMB_ORDER_HASH_CIPHER;
        job->hash_alg = IMB_AUTH_SHA_256;
        job->src = data + (size_t)number * block;
        job->msg_len_to_hash_in_bytes = block;
        job->auth_tag_output = digests[number];
        job->auth_tag_output_len_in_bytes = DIGEST;
        if ((job = IMB_SUBMIT_JOB(manager))) done += job->status == IMB_STATUS_COMPLETED;
    }
    while ((job = IMB_FLUSH_JOB(manager))) done += job->status == IMB_STATUS_COMPLETED;
    return done;
}

int cairn_ceiling_sha256_many(double seconds, size_t block, cairn_ceiling *result) {
    memset(result, 0, sizeof *result);
    uint8_t digests[MESSAGES][DIGEST], expected[EVP_MAX_MD_SIZE];
    uint8_t *data = cairn_noise(MESSAGES * block);
    IMB_MGR *manager = new_manager();
    int ok = data && manager;
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    double end = start.clock + seconds;
    while (ok && cairn_clock() < end) {
        ok = hash_all(manager, data, block, digests) == MESSAGES;
        result->bytes += MESSAGES * block;
        result->operations += MESSAGES;
    }
    cairn_meter_stop(start, RUSAGE_THREAD, result);
    // Wrong ones would be easily made fast.
    for (size_t number = 0; ok && number < MESSAGES; number++)
        ok = EVP_Digest(data + number * block, block, expected, NULL, EVP_sha256(), NULL) &&
             memcmp(digests[number], expected, DIGEST) == 0;
    if (manager) free_mb_mgr(manager);
    free(data);
    return ok ? 0 : cairn_failed(result, "SHA-256 of many messages failed");
}

// TLS 1.3's records: RFC 8446, 5.2

enum { CONTENT = 16384, HEADER = 5, TYPE = 1, TAG = 16, SENT_AT_ONCE = 256 << 10, READ_AT_ONCE = 128 << 10 };
enum { APPLICATION_DATA = 23 };

typedef struct {
    // Then the key's parts for hashing, 240 bytes into it, begin a cache line.
    _Alignas(64) uint8_t unused[16];
    struct gcm_key_data key;
    struct gcm_context_data message;
    IMB_MGR *manager;
    uint64_t records;
    int socket;
    int is_receiver;
    size_t block;
    double seconds;
    cairn_ceiling *result;
    int ok;
} side;

static void begin_record(side *side, const uint8_t header[HEADER]) {
    // The record's number, on an IV of zeros.
    uint8_t nonce[12] = {0};
    uint64_t number = __builtin_bswap64(side->records++);
    memcpy(nonce + 4, &number, sizeof number);
    IMB_AES128_GCM_INIT(side->manager, &side->key, &side->message, nonce, header, HEADER);
}

// How many bytes it has written.
static size_t seal(side *side, const uint8_t *content, size_t count, uint8_t *out) {
    const uint8_t type = APPLICATION_DATA;
    size_t length = count + TYPE + TAG;
    uint8_t *body = out + HEADER;
    memcpy(out, (uint8_t[HEADER]){APPLICATION_DATA, 3, 3, (uint8_t)(length >> 8), (uint8_t)length}, HEADER);
    begin_record(side, out);
    IMB_AES128_GCM_ENC_UPDATE(side->manager, &side->key, &side->message, body, content, count);
    IMB_AES128_GCM_ENC_UPDATE(side->manager, &side->key, &side->message, body + count, &type, TYPE);
    IMB_AES128_GCM_ENC_FINALIZE(side->manager, &side->key, &side->message, body + count + TYPE, TAG);
    return HEADER + length;
}

// 1, or 0 where the record is none of ours. `length`: of what follows the header.
static int open_record(side *side, const uint8_t *record, size_t length, uint8_t *content) {
    uint8_t tag[TAG];
    begin_record(side, record);
    IMB_AES128_GCM_DEC_UPDATE(side->manager, &side->key, &side->message, content, record + HEADER, length - TAG);
    IMB_AES128_GCM_DEC_FINALIZE(side->manager, &side->key, &side->message, tag, TAG);
    return memcmp(tag, record + HEADER + length - TAG, TAG) == 0 && content[length - TAG - TYPE] == APPLICATION_DATA;
}

static int send_all(int socket, const uint8_t *bytes, size_t count) {
    while (count > 0) {
        ssize_t sent = send(socket, bytes, count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) continue;
        if (sent <= 0) return 0;
        bytes += sent;
        count -= (size_t)sent;
    }
    return 1;
}

static int send_records(side *side, const uint8_t *data, uint8_t *out) {
    size_t at = 0;
    double end = cairn_clock() + side->seconds;
    while (cairn_clock() < end) {
        size_t filled = 0;
        while (filled + HEADER + CONTENT + TYPE + TAG <= SENT_AT_ONCE) {
            size_t count = side->block - at < CONTENT ? side->block - at : CONTENT;
            filled += seal(side, data + at, count, out + filled);
            at = (at + count) % side->block;
            side->result->bytes += count;
            side->result->operations++;
        }
        if (!send_all(side->socket, out, filled)) return 0;
    }
    return 1;
}

static int receive_records(side *side, uint8_t *content, uint8_t *in) {
    size_t held = 0;
    for (;;) {
        ssize_t got = recv(side->socket, in + held, READ_AT_ONCE - held, 0);
        if (got < 0 && errno == EINTR) continue;
        // The sender's end is the receiver's.
        if (got <= 0) return got == 0 && held == 0;
        held += (size_t)got;
        size_t at = 0;
        while (held - at >= HEADER) {
            size_t length = (size_t)in[at + 3] << 8 | in[at + 4];
            if (length < TYPE + TAG || length > CONTENT + TYPE + TAG) return 0;
            if (held - at < HEADER + length) break;
            if (!open_record(side, in + at, length, content)) return 0;
            at += HEADER + length;
            side->result->bytes += length - TYPE - TAG;
            side->result->operations++;
        }
        held -= at;
        memmove(in, in + at, held);
    }
}

static void *work(void *argument) {
    side *side = argument;
    const uint8_t key[16] = {0};
    uint8_t *data = cairn_noise(side->is_receiver ? CONTENT + TYPE : side->block);
    uint8_t *wire = malloc(SENT_AT_ONCE);
    side->manager = new_manager();
    side->ok = data && wire && side->manager;
    if (side->ok) IMB_AES128_GCM_PRE(side->manager, key, &side->key);
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    if (side->ok) side->ok = side->is_receiver ? receive_records(side, data, wire) : send_records(side, data, wire);
    cairn_meter_stop(start, RUSAGE_THREAD, side->result);
    shutdown(side->socket, SHUT_RDWR);
    if (side->manager) free_mb_mgr(side->manager);
    free(wire);
    free(data);
    return NULL;
}

int cairn_ceiling_records(double seconds, size_t block, cairn_ceiling *sender, cairn_ceiling *receiver) {
    memset(sender, 0, sizeof *sender);
    memset(receiver, 0, sizeof *receiver);
    int sockets[2] = {-1, -1};
    int connected = cairn_tls_connected(sockets);
    side sides[2] = {
        {.socket = sockets[0], .block = block, .seconds = seconds, .result = sender},
        {.socket = sockets[1], .is_receiver = 1, .result = receiver},
    };
    pthread_t thread;
    if (connected && pthread_create(&thread, NULL, work, &sides[1]) == 0) {
        work(&sides[0]);
        pthread_join(thread, NULL);
    }
    for (int number = 0; number < 2; number++)
        if (sockets[number] >= 0) close(sockets[number]);
    return sides[0].ok && sides[1].ok ? 0 : cairn_failed(sender, "TLS records over loopback failed");
}

#else

int cairn_ceiling_has_vectors(void) { return 0; }

int cairn_ceiling_sha256_many(double seconds, size_t block, cairn_ceiling *result) {
    (void)seconds, (void)block;
    memset(result, 0, sizeof *result);
    return cairn_failed(result, "this processor has no vectors that are known here");
}

int cairn_ceiling_records(double seconds, size_t block, cairn_ceiling *sender, cairn_ceiling *receiver) {
    memset(receiver, 0, sizeof *receiver);
    return cairn_ceiling_sha256_many(seconds, block, sender);
}

#endif
