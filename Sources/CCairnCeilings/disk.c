#include "common.h"
#include <fcntl.h>

// A file without a name, its blocks allocated and written, so that only what is measured is paid; -1 when that fails.
static int prepared(const char *folder, uint64_t size, const void *noise, size_t block, cairn_ceiling *result) {
    int file = open(folder, O_TMPFILE | O_RDWR | O_DIRECT | O_CLOEXEC, 0600);
    if (file < 0) return cairn_failed_errno(result, "a file with O_DIRECT cannot be made there");
    if (posix_fallocate(file, 0, (off_t)size) != 0) {
        close(file);
        return cairn_failed(result, "there is no room for the file");
    }
    for (uint64_t at = 0; at + block <= size; at += block) {
        if (pwrite(file, noise, block, (off_t)at) != (ssize_t)block) {
            cairn_failed_errno(result, "the file cannot be written");
            close(file);
            return -1;
        }
    }
    if (fdatasync(file) != 0) {
        cairn_failed_errno(result, "fdatasync");
        close(file);
        return -1;
    }
    return file;
}

static int run(const char *folder, uint64_t size, size_t block, int writes, int sync, double seconds, cairn_ceiling *result) {
    memset(result, 0, sizeof *result);
    void *noise = cairn_noise(block);
    if (!noise || size < block) {
        free(noise);
        return cairn_failed(result, "no memory, or a file smaller than a block");
    }
    // Filled in large pieces, whatever the block is.
    size_t piece = block < (1 << 20) ? 1 << 20 : block;
    void *large = cairn_noise(piece);
    int file = large ? prepared(folder, size, large, piece, result) : cairn_failed(result, "no memory");
    free(large);
    if (file < 0) {
        free(noise);
        return -1;
    }
    int ok = 1;
    uint64_t at = 0;
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    double end = start.clock + seconds;
    while (ok && cairn_clock() < end) {
        if (at + block > size) at = 0;
        ssize_t count = writes ? pwrite(file, noise, block, (off_t)at) : pread(file, noise, block, (off_t)at);
        ok = count == (ssize_t)block && (!sync || fdatasync(file) == 0);
        at += block;
        result->bytes += block;
        result->operations++;
    }
    cairn_meter_stop(start, RUSAGE_THREAD, result);
    if (!ok) cairn_failed_errno(result, "the disk");
    close(file);
    free(noise);
    return ok ? 0 : -1;
}

int cairn_ceiling_disk_write(const char *folder, uint64_t size, size_t block, int sync, double seconds, cairn_ceiling *result) {
    return run(folder, size, block, 1, sync, seconds, result);
}

int cairn_ceiling_disk_read(const char *folder, uint64_t size, size_t block, double seconds, cairn_ceiling *result) {
    return run(folder, size, block, 0, 0, seconds, result);
}
