#include "common.h"
#include <rocksdb/c.h>

enum { BATCH = 64 };

static int failed(cairn_ceiling *result, char *text) {
    cairn_failed(result, text);
    rocksdb_free(text);
    return -1;
}

static void random_bytes(char *target, size_t count, uint64_t *state) {
    for (size_t at = 0; at < count; at += 8) {
        uint64_t word = cairn_random(state);
        memcpy(target + at, &word, count - at < 8 ? count - at : 8);
    }
}

static int fill(rocksdb_t *database, double seconds, cairn_ceiling *result) {
    uint64_t state = 0x2545F4914F6CDD1DULL ^ (uint64_t)getpid();
    char key[44], value[44], *error = NULL;
    rocksdb_writeoptions_t *options = rocksdb_writeoptions_create();
    rocksdb_writeoptions_disable_WAL(options, 1);
    rocksdb_writebatch_t *batch = rocksdb_writebatch_create();
    double end = cairn_clock() + seconds;
    while (!error && cairn_clock() < end) {
        for (int chunk = 0; chunk < BATCH; chunk++) {
            // A dictionary's entry by hash, and a manifest's by place.
            random_bytes(key, sizeof key, &state);
            random_bytes(value, sizeof value, &state);
            rocksdb_writebatch_put(batch, key, 44, value, 40);
            rocksdb_writebatch_put(batch, key + 4, 36, value, 44);
        }
        rocksdb_write(database, options, batch, &error);
        rocksdb_writebatch_clear(batch);
        result->operations += BATCH;
    }
    rocksdb_writebatch_destroy(batch);
    rocksdb_writeoptions_destroy(options);
    return error ? failed(result, error) : 0;
}

int cairn_ceiling_index_put(const char *folder, double seconds, cairn_ceiling *result) {
    memset(result, 0, sizeof *result);
    char path[4096], *error = NULL;
    snprintf(path, sizeof path, "%s/index-XXXXXX", folder);
    if (!mkdtemp(path)) return cairn_failed_errno(result, "a folder cannot be made there");
    rocksdb_options_t *options = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(options, 1);
    rocksdb_options_set_compression(options, rocksdb_no_compression);
    rocksdb_options_set_max_background_jobs(options, 2);
    rocksdb_options_set_write_buffer_size(options, 64 << 20);
    rocksdb_options_set_max_write_buffer_number(options, 3);
    rocksdb_options_set_info_log_level(options, 3);
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
    rocksdb_options_set_block_based_table_factory(options, table);
    int status = -1;
    rocksdb_t *database = rocksdb_open(options, path, &error);
    if (error) {
        failed(result, error);
    } else {
        cairn_meter start = cairn_meter_now(RUSAGE_SELF);
        status = fill(database, seconds, result);
        cairn_meter_stop(start, RUSAGE_SELF, result);
        rocksdb_close(database);
        error = NULL;
        rocksdb_destroy_db(options, path, &error);
        if (error) rocksdb_free(error);
    }
    rocksdb_block_based_options_destroy(table);
    rocksdb_options_destroy(options);
    rmdir(path);
    return status;
}
