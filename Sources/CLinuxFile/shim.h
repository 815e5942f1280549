#ifndef CAIRN_LINUX_FILE_SHIM_H
#define CAIRN_LINUX_FILE_SHIM_H
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <sys/uio.h>

// glibc shows these only under _GNU_SOURCE, which Swift's Glibc module does not set.
int fallocate(int descriptor, int mode, off_t offset, off_t length);
int pthread_setname_np(pthread_t thread, const char *name);

ssize_t preadv2(int descriptor, const struct iovec *pieces, int count, off_t offset, int flags);

// Reads what is in the page cache, and never waits: EAGAIN where it would have to. The flag is the kernel's RWF_NOWAIT.
static inline ssize_t cairn_read_cached(int descriptor, void *target, size_t count, off_t offset) {
    struct iovec piece = {.iov_base = target, .iov_len = count};
    return preadv2(descriptor, &piece, 1, offset, 0x8);
}
static inline int cairn_fallocate(int descriptor, int mode, off_t offset, off_t length) {
    return fallocate(descriptor, mode, offset, length);
}
static inline void cairn_name_this_thread(const char *name) { (void)pthread_setname_np(pthread_self(), name); }
// Swift cannot call what takes a variable number of arguments.
static inline void cairn_least_timer_slack(void) { (void)prctl(PR_SET_TIMERSLACK, 1UL); }
#endif
