// RocksDB's own messages, handed on instead of written to a file.
//
// RocksDB keeps a text file LOG beside its tables unless it is given a logger, and its C API has none to give. That file shares the
// disk's fate: where writing it fails, the next message ends the process by an assertion of RocksDB (Debian builds it with them),
// and with it every shard of the store.
#ifndef CAIRN_ROCKSDB_LOG_H
#define CAIRN_ROCKSDB_LOG_H

struct rocksdb_options_t;

// One message, without a newline; cut off at 1 KiB. Called on any of RocksDB's threads, and must not call RocksDB.
typedef void (*cairn_rocksdb_line)(void *context, const char *text);

#ifdef __cplusplus
extern "C" {
#endif

// Databases that are opened with these options hand on their errors, and write no text file.
// `release` is called with the context once the options and all of these databases are gone.
void cairn_rocksdb_set_log(struct rocksdb_options_t *options, cairn_rocksdb_line line, void *context,
                           void (*release)(void *));

#ifdef __cplusplus
}
#endif
#endif
