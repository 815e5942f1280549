#ifndef CAIRN_SHA256_H
#define CAIRN_SHA256_H
#include <stddef.h>
#include <stdint.h>
/* SHA-256 (FIPS 180-4) of many messages at once: one alone keeps a processor waiting for itself, round by round. */

/* Ways to compute it, as a set. */
enum {
    CAIRN_SHA256_AVX512 = 1, /* 16 messages in the lanes of vectors */
    CAIRN_SHA256_SHA = 2,    /* 4 or 2 messages in turns, by the SHA instructions */
};

/* The ways that this processor and its system have; 0: none. */
unsigned cairn_sha256_ways(void);

/* The digests of the first messages of `count`, each of `bytes` bytes, a multiple of 64. Uses no way that is not in `ways`, which the
   processor has. `digests`: 32 bytes for each. Returns how many messages it took: those that are left over are too few to gain
   anything. */
size_t cairn_sha256_many(const void *const *messages, size_t count, size_t bytes, uint8_t *digests, unsigned ways);
#endif
