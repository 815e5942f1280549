// Tells ThreadSanitizer about the slow ways of Swift's Mutex. Its quick ways are compiled into our code, and so are seen; its slow
// ones lie in libswiftSynchronization, which is not instrumented: what a contended lock orders would be reported as a race.
// tools/tsan links this in: each function stands in front of the library's of the same name, and calls it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

// _MutexHandle's methods, by Swift's calling convention: the lock's address comes as `self`.
#define LOCK_SLOW "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK_SLOW "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define TRY_LOCK_SLOW "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context)) void *self

// Of the sanitizer's runtime.
void __tsan_acquire(void *address);
void __tsan_release(void *address);

SWIFT void cairn_lock_slow(uint32_t thread, SELF) __asm__(LOCK_SLOW);
SWIFT void cairn_unlock_slow(SELF) __asm__(UNLOCK_SLOW);
SWIFT bool cairn_try_lock_slow(SELF) __asm__(TRY_LOCK_SLOW);

static void *next(const char *name) {
    void *function = dlsym(RTLD_NEXT, name);
    if (function) return function;
    // Another Swift, in which Mutex works otherwise.
    fprintf(stderr, "there is no %s\n", name);
    abort();
}

SWIFT void cairn_lock_slow(uint32_t thread, SELF) {
    SWIFT void (*lock)(uint32_t, SELF) = next(LOCK_SLOW);
    lock(thread, self);
    __tsan_acquire(self);
}

SWIFT void cairn_unlock_slow(SELF) {
    SWIFT void (*unlock)(SELF) = next(UNLOCK_SLOW);
    __tsan_release(self);
    unlock(self);
}

SWIFT bool cairn_try_lock_slow(SELF) {
    SWIFT bool (*try)(SELF) = next(TRY_LOCK_SLOW);
    bool taken = try(self);
    if (taken) __tsan_acquire(self);
    return taken;
}
