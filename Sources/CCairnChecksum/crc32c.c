/* C because Swift has no intrinsics for the CRC instructions, and Debian ships no CRC-32C library with a C API. */
#include "cairn_checksum.h"
#include <pthread.h>
#include <string.h>

#define POLY 0x82f63b78u
#define STREAM 4096 /* bytes of each of the three interleaved streams; a multiple of 8 */

static uint32_t table[8][256];
static uint32_t shift_table[4][256]; /* multiplies a CRC by x^(8*STREAM), a byte at a time */
static uint32_t powers[8 * sizeof(size_t)]; /* x^(8 * 2^k) */
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* a*b mod P in GF(2), bit-reflected. */
static uint32_t multiply(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (uint32_t bit = 1u << 31; bit; bit >>= 1) {
        if (a & bit) product ^= b;
        b = (b >> 1) ^ ((b & 1) ? POLY : 0);
    }
    return product;
}

/* What `n` bytes after it make of a CRC. */
static uint32_t shift_by(uint32_t crc, size_t n) {
    for (int k = 0; n; k++, n >>= 1)
        if (n & 1) crc = multiply(crc, powers[k]);
    return crc;
}

static void make_tables(void) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = (c >> 1) ^ ((c & 1) ? POLY : 0);
        table[0][i] = c;
    }
    for (int t = 1; t < 8; t++)
        for (uint32_t i = 0; i < 256; i++) table[t][i] = (table[t - 1][i] >> 8) ^ table[0][table[t - 1][i] & 255];
    powers[0] = 1u << 23; /* x^8 */
    for (size_t k = 1; k < sizeof powers / sizeof *powers; k++) powers[k] = multiply(powers[k - 1], powers[k - 1]);
    for (int t = 0; t < 4; t++)
        for (uint32_t i = 0; i < 256; i++) shift_table[t][i] = shift_by(i << (8 * t), STREAM);
}

uint32_t cairn_crc32c_join(uint32_t a, uint32_t b, size_t n) {
    pthread_once(&once, make_tables);
    return shift_by(a, n) ^ b;
}

uint32_t cairn_crc32c_portable(uint32_t crc, const void *data, size_t n) {
    pthread_once(&once, make_tables);
    const uint8_t *p = data;
    uint32_t c = ~crc;
    for (; n >= 8; n -= 8, p += 8) {
        uint32_t low = c ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
        c = table[7][low & 255] ^ table[6][low >> 8 & 255] ^ table[5][low >> 16 & 255] ^ table[4][low >> 24] ^
            table[3][p[4]] ^ table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
    }
    while (n--) c = (c >> 8) ^ table[0][(c ^ *p++) & 255];
    return ~c;
}

#if defined(__x86_64__)
#include <nmmintrin.h>
#define HARDWARE __attribute__((target("sse4.2")))
#define STEP8(c, v) ((uint32_t)_mm_crc32_u64((c), (v)))
#define STEP1(c, v) _mm_crc32_u8((c), (v))
static int has_hardware(void) { return __builtin_cpu_supports("sse4.2"); }
#elif defined(__aarch64__)
#include <arm_acle.h>
#include <sys/auxv.h>
#define HARDWARE __attribute__((target("+crc")))
#define STEP8(c, v) __crc32cd((c), (v))
#define STEP1(c, v) __crc32cb((c), (v))
static int has_hardware(void) { return (getauxval(AT_HWCAP) >> 7) & 1; }
#endif

#ifdef HARDWARE
static uint64_t load(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}
static uint32_t shift(uint32_t c) {
    return shift_table[0][c & 255] ^ shift_table[1][c >> 8 & 255] ^ shift_table[2][c >> 16 & 255] ^ shift_table[3][c >> 24];
}
/* The instruction has a latency of three cycles and a throughput of one: three streams keep it busy. */
HARDWARE static uint32_t hardware(uint32_t crc, const uint8_t *p, size_t n) {
    uint32_t c = ~crc;
    for (; n >= 3 * STREAM; n -= 3 * STREAM, p += 3 * STREAM) {
        uint32_t c1 = 0, c2 = 0;
        for (size_t i = 0; i < STREAM; i += 8) {
            c = STEP8(c, load(p + i));
            c1 = STEP8(c1, load(p + STREAM + i));
            c2 = STEP8(c2, load(p + 2 * STREAM + i));
        }
        c = shift(c) ^ c1;
        c = shift(c) ^ c2;
    }
    for (; n >= 8; n -= 8, p += 8) c = STEP8(c, load(p));
    while (n--) c = STEP1(c, *p++);
    return ~c;
}
#endif

uint32_t cairn_crc32c(uint32_t crc, const void *data, size_t n) {
#ifdef HARDWARE
    static int usable = -1; /* benign race: every thread computes the same value */
    pthread_once(&once, make_tables);
    if (usable < 0) usable = has_hardware();
    if (usable) return hardware(crc, data, n);
#endif
    return cairn_crc32c_portable(crc, data, n);
}
