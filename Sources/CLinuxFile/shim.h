#ifndef CAIRN_LINUX_FILE_SHIM_H
#define CAIRN_LINUX_FILE_SHIM_H
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/types.h>

// glibc shows these only under _GNU_SOURCE, which Swift's Glibc module does not set.
int fallocate(int descriptor, int mode, off_t offset, off_t length);
int pthread_setname_np(pthread_t thread, const char *name);

static inline int cairn_fallocate(int descriptor, int mode, off_t offset, off_t length) {
    return fallocate(descriptor, mode, offset, length);
}
static inline void cairn_name_this_thread(const char *name) { (void)pthread_setname_np(pthread_self(), name); }
// Swift cannot call what takes a variable number of arguments.
static inline void cairn_least_timer_slack(void) { (void)prctl(PR_SET_TIMERSLACK, 1UL); }
#endif
