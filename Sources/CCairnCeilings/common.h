#ifndef CAIRN_CEILINGS_COMMON_H
#define CAIRN_CEILINGS_COMMON_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "cairn_ceilings.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    double clock, user, system;
} cairn_meter;

static inline double cairn_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// Of this thread, or of the whole process.
static inline cairn_meter cairn_meter_now(int who) {
    struct rusage usage;
    getrusage(who, &usage);
    cairn_meter now = {
        .clock = cairn_clock(),
        .user = (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6,
        .system = (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6,
    };
    return now;
}

static inline void cairn_meter_stop(cairn_meter start, int who, cairn_ceiling *result) {
    cairn_meter end = cairn_meter_now(who);
    result->seconds = end.clock - start.clock;
    result->user = end.user - start.user;
    result->system = end.system - start.system;
}

static inline int cairn_failed(cairn_ceiling *result, const char *what) {
    snprintf(result->error, sizeof result->error, "%s", what);
    return -1;
}

static inline int cairn_failed_errno(cairn_ceiling *result, const char *what) {
    snprintf(result->error, sizeof result->error, "%s: %s", what, strerror(errno));
    return -1;
}

// xorshift64*: bytes that no codec shortens, and keys that look like hashes.
static inline uint64_t cairn_random(uint64_t *state) {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545F4914F6CDD1DULL;
}

// Page-aligned noise; NULL when there is no memory.
static inline void *cairn_noise(size_t size) {
    void *memory = NULL;
    uint64_t state = 0x9E3779B97F4A7C15ULL;
    if (posix_memalign(&memory, 4096, size) != 0) return NULL;
    for (size_t at = 0; at + 8 <= size; at += 8) {
        uint64_t word = cairn_random(&state);
        memcpy((char *)memory + at, &word, 8);
    }
    return memory;
}
#endif
