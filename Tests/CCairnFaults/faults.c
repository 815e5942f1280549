// Faults of the file system, for a real process: LD_PRELOAD=libCairnFaults.so CAIRN_FAULTS=PLAN.
//
//   call ──► is its file under the folder? ──► count ──► is it the one that the plan means? ──► fault
//                     │ no                                        │ no
//                     └───────────────► the real call ◄───────────┘
//
// A death is SIGKILL to the process itself: no handler, no destructor, no flush. What stdio does inside of glibc (RocksDB's
// text log, and what it reads from beginning to end when it is opened: CURRENT, its manifest) is not seen. Nothing here allocates
// or locks: it runs in any thread, at any time.
#define _GNU_SOURCE
#include "cairn_faults.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static struct cairn_fault_plan *plan;
static _Thread_local int retrying;

__attribute__((constructor)) static void load(void) {
    const char *path = getenv("CAIRN_FAULTS");
    if (!path) return;
    int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int descriptor = real(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0) abort();
    void *memory = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED) abort();
    close(descriptor);
    plan = memory;
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define RELAXED __ATOMIC_RELAXED

static void die(void) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static int begins(const char *path, const char *folder) {
    size_t length = strlen(folder);
    return length > 0 && strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

// What is to happen to a call; 0: nothing.
static int decide(int kind, const char *path) {
    if (!plan || !begins(path, plan->folder)) return 0;
    __atomic_add_fetch(&plan->counts[kind], 1, RELAXED);
    uint64_t at = __atomic_load_n(&plan->at, __ATOMIC_ACQUIRE);
    if (!(plan->kinds >> kind & 1)) return 0;
    if (plan->fragment[0] && !strstr(path, plan->fragment)) return 0;
    uint64_t number = __atomic_add_fetch(&plan->matched, 1, RELAXED);
    if (at == 0 || number < at) return 0;
    if (plan->mode == CAIRN_FAULT_ONCE && number != at) return 0;
    if (plan->mode == CAIRN_FAULT_EVERY && retrying) {
        retrying = 0;
        return 0;
    }
    int action = (int)plan->action;
    int moves = kind == CAIRN_FAULT_READ || kind == CAIRN_FAULT_WRITE;
    int syncs = kind == CAIRN_FAULT_FSYNC || kind == CAIRN_FAULT_FDATASYNC;
    if ((action == CAIRN_FAULT_SHORT && !moves) || (action == CAIRN_FAULT_PRETEND && !syncs)) return 0;
    retrying = 1;
    plan->fired_kind = (uint64_t)kind;
    strncpy(plan->fired_path, path, sizeof plan->fired_path - 1);
    __atomic_add_fetch(&plan->fired, 1, __ATOMIC_RELEASE);
    if (action == CAIRN_FAULT_KILL_BEFORE || (action == CAIRN_FAULT_KILL_HALFWAY && !moves)) die();
    return action;
}

static int decide_open_file(int kind, int descriptor) {
    if (!plan) return 0;
    char link[32], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int before = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length <= 0 || path[0] != '/') return 0;
    path[length] = 0;
    return decide(kind, path);
}

static int error_of(int action) {
    switch (action) {
    case CAIRN_FAULT_EIO: return EIO;
    case CAIRN_FAULT_ENOSPC: return ENOSPC;
    case CAIRN_FAULT_EINTR: return EINTR;
    default: return 0;
    }
}

// Half of them; whole sectors where there are several, as a disk would have it.
static size_t half(size_t count) { return count >= 1024 ? count / 2 / 512 * 512 : count > 1 ? count / 2 : count; }

// For calls without bytes.
#define AROUND(action, failed, call)                        \
    do {                                                    \
        int chosen = action, fault = error_of(chosen);      \
        if (fault) { errno = fault; return failed; }        \
        if (chosen == CAIRN_FAULT_PRETEND) return 0;        \
        __typeof__(call) result = call;                     \
        if (chosen == CAIRN_FAULT_KILL_AFTER) die();        \
        return result;                                      \
    } while (0)

// For calls with bytes: `full` is the call, `halved` the same with half of them.
#define AROUND_BYTES(action, full, halved)                  \
    do {                                                    \
        int fault = error_of(action);                       \
        if (fault) { errno = fault; return -1; }            \
        if ((action) == CAIRN_FAULT_SHORT) return halved;   \
        if ((action) == CAIRN_FAULT_KILL_HALFWAY) { (void)!(halved); die(); } \
        ssize_t result = full;                              \
        if ((action) == CAIRN_FAULT_KILL_AFTER) die();      \
        return result;                                      \
    } while (0)

#define OPEN(name)                                                        \
    int name(const char *path, int flags, ...) {                          \
        mode_t mode = 0;                                                  \
        if (flags & (O_CREAT | O_TMPFILE)) {                              \
            va_list list;                                                 \
            va_start(list, flags);                                        \
            mode = va_arg(list, mode_t);                                  \
            va_end(list);                                                 \
        }                                                                 \
        REAL(name);                                                       \
        int kind = flags & O_CREAT ? CAIRN_FAULT_CREATE : CAIRN_FAULT_OPEN; \
        int action = decide(kind, path);                                  \
        AROUND(action, -1, real(path, flags, mode));                      \
    }
OPEN(open)
OPEN(open64)

#define READ(name, offset_type)                                                                         \
    ssize_t name(int descriptor, void *bytes, size_t count, offset_type offset) {                       \
        REAL(name);                                                                                     \
        int action = decide_open_file(CAIRN_FAULT_READ, descriptor);                                    \
        AROUND_BYTES(action, real(descriptor, bytes, count, offset), real(descriptor, bytes, half(count), offset)); \
    }
READ(pread, off_t)
READ(pread64, off64_t)

// Also of sockets and the like, which have no path.
ssize_t read(int descriptor, void *bytes, size_t count) {
    REAL(read);
    int action = decide_open_file(CAIRN_FAULT_READ, descriptor);
    AROUND_BYTES(action, real(descriptor, bytes, count), real(descriptor, bytes, half(count)));
}

#define WRITE(name, offset_type)                                                                        \
    ssize_t name(int descriptor, const void *bytes, size_t count, offset_type offset) {                 \
        REAL(name);                                                                                     \
        int action = decide_open_file(CAIRN_FAULT_WRITE, descriptor);                                   \
        AROUND_BYTES(action, real(descriptor, bytes, count, offset), real(descriptor, bytes, half(count), offset)); \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

ssize_t write(int descriptor, const void *bytes, size_t count) {
    REAL(write);
    int action = decide_open_file(CAIRN_FAULT_WRITE, descriptor);
    AROUND_BYTES(action, real(descriptor, bytes, count), real(descriptor, bytes, half(count)));
}

// Half of a list of pieces: its first one's half.
#define PIECES(name, offset_type, kind)                                                                 \
    ssize_t name(int descriptor, const struct iovec *pieces, int count, offset_type offset) {           \
        REAL(name);                                                                                     \
        int action = decide_open_file(kind, descriptor);                                                \
        struct iovec first = {pieces[0].iov_base, half(pieces[0].iov_len)};                             \
        AROUND_BYTES(action, real(descriptor, pieces, count, offset), real(descriptor, &first, 1, offset)); \
    }
PIECES(preadv, off_t, CAIRN_FAULT_READ)
PIECES(preadv64, off64_t, CAIRN_FAULT_READ)
PIECES(pwritev, off_t, CAIRN_FAULT_WRITE)
PIECES(pwritev64, off64_t, CAIRN_FAULT_WRITE)

#define PIECES_AS(name, offset_type)                                                                    \
    ssize_t name(int descriptor, const struct iovec *pieces, int count, offset_type offset, int flags) { \
        REAL(name);                                                                                     \
        int action = decide_open_file(CAIRN_FAULT_READ, descriptor);                                    \
        struct iovec first = {pieces[0].iov_base, half(pieces[0].iov_len)};                             \
        AROUND_BYTES(action, real(descriptor, pieces, count, offset, flags), real(descriptor, &first, 1, offset, flags)); \
    }
PIECES_AS(preadv2, off_t)
PIECES_AS(preadv64v2, off64_t)

int fsync(int descriptor) {
    REAL(fsync);
    AROUND(decide_open_file(CAIRN_FAULT_FSYNC, descriptor), -1, real(descriptor));
}
int fdatasync(int descriptor) {
    REAL(fdatasync);
    AROUND(decide_open_file(CAIRN_FAULT_FDATASYNC, descriptor), -1, real(descriptor));
}

#define TRUNCATE(name, offset_type)                                                           \
    int name(int descriptor, offset_type size) {                                              \
        REAL(name);                                                                           \
        AROUND(decide_open_file(CAIRN_FAULT_TRUNCATE, descriptor), -1, real(descriptor, size)); \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define ALLOCATE(name, offset_type)                                                                           \
    int name(int descriptor, int mode, offset_type offset, offset_type length) {                              \
        REAL(name);                                                                                           \
        AROUND(decide_open_file(CAIRN_FAULT_ALLOCATE, descriptor), -1, real(descriptor, mode, offset, length)); \
    }
ALLOCATE(fallocate, off_t)
ALLOCATE(fallocate64, off64_t)

// These give their error instead of setting it.
#define POSIX_ALLOCATE(name, offset_type)                                            \
    int name(int descriptor, offset_type offset, offset_type length) {               \
        REAL(name);                                                                  \
        int action = decide_open_file(CAIRN_FAULT_ALLOCATE, descriptor);             \
        AROUND(action, error_of(action), real(descriptor, offset, length));          \
    }
POSIX_ALLOCATE(posix_fallocate, off_t)
POSIX_ALLOCATE(posix_fallocate64, off64_t)

int rename(const char *from, const char *to) {
    REAL(rename);
    AROUND(decide(CAIRN_FAULT_RENAME, to), -1, real(from, to));
}
int link(const char *from, const char *to) {
    REAL(link);
    AROUND(decide(CAIRN_FAULT_LINK, to), -1, real(from, to));
}
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
    REAL(linkat);
    AROUND(decide(CAIRN_FAULT_LINK, to), -1, real(from_folder, from, to_folder, to, flags));
}
int unlink(const char *path) {
    REAL(unlink);
    AROUND(decide(CAIRN_FAULT_UNLINK, path), -1, real(path));
}
int rmdir(const char *path) {
    REAL(rmdir);
    AROUND(decide(CAIRN_FAULT_UNLINK, path), -1, real(path));
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    AROUND(decide(CAIRN_FAULT_MKDIR, path), -1, real(path, mode));
}

DIR *opendir(const char *path) {
    REAL(opendir);
    AROUND(decide(CAIRN_FAULT_OPENDIR, path), NULL, real(path));
}

// The first one of a listing: the kernel gives that one the names of all that follow, but in very large folders.
#define READDIR(name, entry)                                                              \
    struct entry *name(DIR *folder) {                                                     \
        REAL(name);                                                                       \
        int action = 0;                                                                   \
        if (plan && telldir(folder) == 0) action = decide_open_file(CAIRN_FAULT_READDIR, dirfd(folder)); \
        AROUND(action, NULL, real(folder));                                               \
    }
READDIR(readdir, dirent)
READDIR(readdir64, dirent64)
