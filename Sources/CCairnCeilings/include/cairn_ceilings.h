// What this machine can do at all: the primitives that a storage server is made of, each measured by itself, by code that shares
// nothing with the server. Every function works for about `seconds`, fills `result`, and gives 0; or -1, with `error` saying why.
#ifndef CAIRN_CEILINGS_H
#define CAIRN_CEILINGS_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
    double seconds;   // of the clock
    double user;      // processor seconds
    double system;    // in the kernel
    uint64_t bytes;
    uint64_t operations;
    double ratio;     // of compression: bytes in by bytes out; else 0
    char error[160];
} cairn_ceiling;

// SHA-256 of blocks, by OpenSSL's EVP with one context.
int cairn_ceiling_sha256(double seconds, size_t block, cairn_ceiling *result);

// LZ4 of blocks of `data`, which goes around.
int cairn_ceiling_lz4_compress(const void *data, size_t size, size_t block, double seconds, cairn_ceiling *result);
int cairn_ceiling_lz4_decompress(const void *data, size_t size, size_t block, double seconds, cairn_ceiling *result);

// TLS 1.3 with AES-128-GCM over loopback TCP, one connection, a thread on each side, 128 KiB from and 256 KiB to the socket at once.
int cairn_ceiling_tls(double seconds, size_t block, cairn_ceiling *sender, cairn_ceiling *receiver);

// Whether this processor has the vectors that the next two want, which are by Intel's Multi-Buffer Crypto library: 1 or 0.
int cairn_ceiling_has_vectors(void);

// SHA-256 of 16 blocks side by side. An operation is a block, of at most 65,534 bytes.
int cairn_ceiling_sha256_many(double seconds, size_t block, cairn_ceiling *result);

// TLS 1.3's records with AES-128-GCM by vectors, over loopback as above: nothing but encryption, decryption and the socket, under
// a key that was agreed upon before. An operation is a record.
int cairn_ceiling_records(double seconds, size_t block, cairn_ceiling *sender, cairn_ceiling *receiver);

// Small calls: `in_flight` requests of so many bytes on each of the connections (TLS as above), answered with so many, and at once another
// for each answer. A thread on each side that waits in epoll_wait; all that one read brought is answered by one write. What a server of
// this kind cannot avoid: it does not look at what it gets. Each side's processor time; an operation is a call.
int cairn_ceiling_calls(
    int connections, int in_flight, size_t request, size_t answer, double seconds, cairn_ceiling *client, cairn_ceiling *server);

// A file in `folder`, its blocks allocated and written before, past the page cache (O_DIRECT).
int cairn_ceiling_disk_write(const char *folder, uint64_t size, size_t block, int sync, double seconds, cairn_ceiling *result);
int cairn_ceiling_disk_read(const char *folder, uint64_t size, size_t block, double seconds, cairn_ceiling *result);

// RocksDB in `folder`, its log off: batches of 64 chunks, two random keys each (44 and 36 bytes, values of 40 and 44). An operation
// is a chunk. Compaction's threads count.
int cairn_ceiling_index_put(const char *folder, double seconds, cairn_ceiling *result);
#endif
