// A plan of faults, in a file that a test and its victim map both. See faults.c.
#ifndef CAIRN_FAULTS_H
#define CAIRN_FAULTS_H
#include <stdint.h>

// Which calls: the bits of `kinds`, and the places of `counts`.
enum cairn_fault_kind {
    CAIRN_FAULT_OPEN, CAIRN_FAULT_READ, CAIRN_FAULT_WRITE, CAIRN_FAULT_FSYNC, CAIRN_FAULT_FDATASYNC, CAIRN_FAULT_TRUNCATE,
    CAIRN_FAULT_ALLOCATE, CAIRN_FAULT_RENAME, CAIRN_FAULT_UNLINK, CAIRN_FAULT_MKDIR,
    CAIRN_FAULT_CREATE, // an open that may make the file
    CAIRN_FAULT_LINK,
    CAIRN_FAULT_OPENDIR,
    CAIRN_FAULT_READDIR,
    CAIRN_FAULT_KINDS
};

enum cairn_fault_action {
    CAIRN_FAULT_KILL_BEFORE = 1,
    CAIRN_FAULT_KILL_HALFWAY, // half of the bytes are written
    CAIRN_FAULT_KILL_AFTER,
    CAIRN_FAULT_EIO,
    CAIRN_FAULT_ENOSPC,
    CAIRN_FAULT_EINTR,
    CAIRN_FAULT_SHORT,   // half of the bytes are read or written; calls without bytes are left alone
    CAIRN_FAULT_PRETEND, // a sync says that it is done, and does nothing; others are left alone
};

enum cairn_fault_mode {
    CAIRN_FAULT_ONCE,  // the call number `at`
    CAIRN_FAULT_ON,    // from call number `at` on
    CAIRN_FAULT_EVERY, // from call number `at` on every call of a thread that is not its next one after a fault: a retry succeeds
};

// The test writes `at` last: 0 for no fault. Everything else is counted on.
struct cairn_fault_plan {
    uint64_t at;
    uint64_t action;
    uint64_t mode;
    uint64_t kinds;   // a bit for each kind
    uint64_t matched; // calls of these kinds on these files so far
    uint64_t fired;   // faults so far
    uint64_t fired_kind;
    uint64_t counts[16];   // calls of each kind under the folder, whatever the plan matches
    char folder[512];      // only files under it count
    char fragment[64];     // and only paths that hold this
    char fired_path[512];  // of the last fault
};
#endif
