/* C because Swift has no intrinsics for these instructions, and no library of Debian's takes messages of 64 KiB: OpenSSL's EVP takes one at
   a time, and libipsec-mb's jobs end at 65,534 bytes. */
#include "cairn_sha256.h"
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
static const uint32_t START[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

/* The block behind a message of whole blocks: a bit, zeros, and the length in bits (FIPS 180-4, 5.1.1). */
static void make_padding(uint8_t block[64], size_t bytes) {
    memset(block, 0, 64);
    block[0] = 0x80;
    uint64_t bits = __builtin_bswap64((uint64_t)bytes * 8);
    memcpy(block + 56, &bits, 8);
}

/* AVX-512: word i of each of 16 messages is lane 0…15 of one vector. */

#define AVX512 __attribute__((target("avx512f,avx512bw")))
#define LANES 16
#define ROTATE(x, n) _mm512_ror_epi32(x, n)
#define XOR3(a, b, c) _mm512_ternarylogic_epi32(a, b, c, 0x96)
#define ADD(a, b) _mm512_add_epi32(a, b)

/* The next 64 bytes of each message, as 16 vectors of big-endian words: a transposition of 16 x 16 words. */
AVX512 static inline void load_words(__m512i w[16], const uint8_t *const messages[LANES], size_t offset) {
    const __m512i swap = _mm512_broadcast_i32x4(_mm_set_epi8(12, 13, 14, 15, 8, 9, 10, 11, 4, 5, 6, 7, 0, 1, 2, 3));
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_shuffle_epi8(_mm512_loadu_si512(messages[i] + offset), swap);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        b[i] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0x88);
        b[i + 4] = _mm512_shuffle_i32x4(a[i], a[i + 4], 0xdd);
        b[i + 8] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0x88);
        b[i + 12] = _mm512_shuffle_i32x4(a[i + 8], a[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        w[i] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88);
        w[i + 8] = _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd);
        w[i + 4] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0x88);
        w[i + 12] = _mm512_shuffle_i32x4(b[i + 4], b[i + 12], 0xdd);
    }
}

AVX512 static void compress_lanes(__m512i state[8], const uint8_t *const messages[LANES], size_t blocks) {
    for (size_t block = 0; block < blocks; block++) {
        __m512i w[16];
        load_words(w, messages, block * 64);
        __m512i a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
#pragma clang loop unroll(full)
        for (int i = 0; i < 64; i++) {
            const __m512i word = w[i & 15];
            const __m512i choice = _mm512_ternarylogic_epi32(e, f, g, 0xca), majority = _mm512_ternarylogic_epi32(a, b, c, 0xe8);
            /* What waits for the round before comes last. */
            const __m512i sum = ADD(ADD(h, ADD(word, _mm512_set1_epi32((int)K[i]))), choice);
            const __m512i sigma1 = XOR3(ROTATE(e, 6), ROTATE(e, 11), ROTATE(e, 25));
            const __m512i sigma0 = XOR3(ROTATE(a, 2), ROTATE(a, 13), ROTATE(a, 22));
            h = g, g = f, f = e, e = ADD(ADD(sum, d), sigma1);
            d = c, c = b, b = a, a = ADD(ADD(ADD(sum, majority), sigma0), sigma1);
            if (i < 48) {
                const __m512i x = w[(i + 1) & 15], y = w[(i + 14) & 15];
                w[i & 15] = ADD(
                    ADD(word, w[(i + 9) & 15]),
                    ADD(XOR3(ROTATE(x, 7), ROTATE(x, 18), _mm512_srli_epi32(x, 3)),
                        XOR3(ROTATE(y, 17), ROTATE(y, 19), _mm512_srli_epi32(y, 10))));
            }
        }
        state[0] = ADD(state[0], a), state[1] = ADD(state[1], b), state[2] = ADD(state[2], c), state[3] = ADD(state[3], d);
        state[4] = ADD(state[4], e), state[5] = ADD(state[5], f), state[6] = ADD(state[6], g), state[7] = ADD(state[7], h);
    }
}

/* `count` of the lanes are wanted; the others compute the last message again. */
AVX512 static void hash_lanes(
    const void *const *messages, size_t count, size_t bytes, const uint8_t padding[64], uint8_t *digests) {
    const uint8_t *lanes[LANES], *ends[LANES];
    for (size_t i = 0; i < LANES; i++) lanes[i] = messages[i < count ? i : count - 1], ends[i] = padding;
    __m512i state[8];
    for (int i = 0; i < 8; i++) state[i] = _mm512_set1_epi32((int)START[i]);
    compress_lanes(state, lanes, bytes / 64);
    compress_lanes(state, ends, 1);
    uint32_t words[8][LANES];
    for (int i = 0; i < 8; i++) _mm512_storeu_si512(words[i], state[i]);
    for (size_t lane = 0; lane < count; lane++)
        for (int i = 0; i < 8; i++) {
            uint32_t word = __builtin_bswap32(words[i][lane]);
            memcpy(digests + 32 * lane + 4 * i, &word, 4);
        }
}

/* The SHA instructions, on `n` messages in turns: while one's rounds are computed the next one's begin. */

#define SHA __attribute__((target("sha,sse4.1,ssse3")))
#define MOST_TURNS 4

/* The state in the order that the instructions want it in: words A B E F, and C D G H. */
SHA __attribute__((always_inline)) static inline void compress_turns(
    const int n, __m128i abef[], __m128i cdgh[], const uint8_t *const messages[], size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    for (size_t block = 0; block < blocks; block++) {
        __m128i w[MOST_TURNS][4], x[MOST_TURNS], y[MOST_TURNS];
        for (int k = 0; k < n; k++) {
            x[k] = abef[k], y[k] = cdgh[k];
            for (int i = 0; i < 4; i++)
                w[k][i] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(messages[k] + block * 64 + 16 * i)), swap);
        }
#pragma clang loop unroll(full)
        for (int i = 0; i < 16; i++) {
            const __m128i constants = _mm_loadu_si128((const __m128i *)&K[4 * i]);
#pragma clang loop unroll(full)
            for (int k = 0; k < n; k++) {
                const __m128i sum = _mm_add_epi32(w[k][i & 3], constants);
                y[k] = _mm_sha256rnds2_epu32(y[k], x[k], sum);
                x[k] = _mm_sha256rnds2_epu32(x[k], y[k], _mm_shuffle_epi32(sum, 0x0e));
                if (i < 12) {
                    const __m128i between = _mm_alignr_epi8(w[k][(i + 3) & 3], w[k][(i + 2) & 3], 4);
                    const __m128i next = _mm_add_epi32(_mm_sha256msg1_epu32(w[k][i & 3], w[k][(i + 1) & 3]), between);
                    w[k][i & 3] = _mm_sha256msg2_epu32(next, w[k][(i + 3) & 3]);
                }
            }
        }
        for (int k = 0; k < n; k++) abef[k] = _mm_add_epi32(abef[k], x[k]), cdgh[k] = _mm_add_epi32(cdgh[k], y[k]);
    }
}

/* `count` of the `n` messages are wanted; the others are the last one again. */
SHA __attribute__((always_inline)) static inline void hash_turns(
    const int n, const void *const *messages, size_t count, size_t bytes, const uint8_t padding[64], uint8_t *digests) {
    __m128i abef[MOST_TURNS], cdgh[MOST_TURNS];
    const uint8_t *turns[MOST_TURNS], *ends[MOST_TURNS];
    for (int k = 0; k < n; k++) {
        abef[k] = _mm_set_epi32((int)START[0], (int)START[1], (int)START[4], (int)START[5]);
        cdgh[k] = _mm_set_epi32((int)START[2], (int)START[3], (int)START[6], (int)START[7]);
        turns[k] = messages[(size_t)k < count ? (size_t)k : count - 1], ends[k] = padding;
    }
    compress_turns(n, abef, cdgh, turns, bytes / 64);
    compress_turns(n, abef, cdgh, ends, 1);
    for (size_t k = 0; k < count; k++) {
        uint32_t p[4], q[4];
        _mm_storeu_si128((__m128i *)p, abef[k]);
        _mm_storeu_si128((__m128i *)q, cdgh[k]);
        const uint32_t words[8] = {p[3], p[2], q[3], q[2], p[1], p[0], q[1], q[0]};
        for (int i = 0; i < 8; i++) {
            uint32_t word = __builtin_bswap32(words[i]);
            memcpy(digests + 32 * k + 4 * i, &word, 4);
        }
    }
}

SHA static void hash_4(const void *const *messages, size_t count, size_t bytes, const uint8_t padding[64], uint8_t *digests) {
    hash_turns(4, messages, count, bytes, padding, digests);
}

SHA static void hash_2(const void *const *messages, size_t bytes, const uint8_t padding[64], uint8_t *digests) {
    hash_turns(2, messages, 2, bytes, padding, digests);
}

unsigned cairn_sha256_ways(void) {
    unsigned a, b, c, d, ways = 0;
    /* Asks also whether the system keeps the vectors' registers. */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")) ways |= CAIRN_SHA256_AVX512;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 29 & 1) && __builtin_cpu_supports("sse4.1")) ways |= CAIRN_SHA256_SHA;
    return ways;
}

size_t cairn_sha256_many(const void *const *messages, size_t count, size_t bytes, uint8_t *digests, unsigned ways) {
    /* From so many lanes on vectors are faster than the SHA instructions, or than one message at a time. */
    const size_t fewest = ways & CAIRN_SHA256_SHA ? 12 : 7;
    uint8_t padding[64];
    make_padding(padding, bytes);
    size_t done = 0;
    while (done < count) {
        const size_t left = count - done;
        const void *const *next = messages + done;
        if ((ways & CAIRN_SHA256_AVX512) && left >= fewest) {
            const size_t taken = left < LANES ? left : LANES;
            hash_lanes(next, taken, bytes, padding, digests + 32 * done);
            done += taken;
        } else if ((ways & CAIRN_SHA256_SHA) && left >= 3) {
            const size_t taken = left < 4 ? left : 4;
            hash_4(next, taken, bytes, padding, digests + 32 * done);
            done += taken;
        } else if ((ways & CAIRN_SHA256_SHA) && left == 2) {
            hash_2(next, bytes, padding, digests + 32 * done);
            done += 2;
        } else {
            break;
        }
    }
    return done;
}

#else

unsigned cairn_sha256_ways(void) { return 0; }

size_t cairn_sha256_many(const void *const *messages, size_t count, size_t bytes, uint8_t *digests, unsigned ways) {
    (void)messages, (void)count, (void)bytes, (void)digests, (void)ways;
    return 0;
}

#endif
