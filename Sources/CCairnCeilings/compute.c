#include "common.h"
#include <lz4.h>
#include <openssl/evp.h>

int cairn_ceiling_sha256(double seconds, size_t block, cairn_ceiling *result) {
    memset(result, 0, sizeof *result);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned char *data = cairn_noise(block);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_MD *sha = EVP_MD_fetch(NULL, "SHA256", NULL);
    int ok = data && context && sha;
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    double end = start.clock + seconds;
    while (ok && cairn_clock() < end) {
        ok = EVP_DigestInit_ex(context, sha, NULL) && EVP_DigestUpdate(context, data, block) &&
             EVP_DigestFinal_ex(context, digest, NULL);
        result->bytes += block;
        result->operations++;
    }
    cairn_meter_stop(start, RUSAGE_THREAD, result);
    EVP_MD_free(sha);
    EVP_MD_CTX_free(context);
    free(data);
    return ok ? 0 : cairn_failed(result, "SHA-256 by OpenSSL failed");
}

int cairn_ceiling_lz4_compress(const void *data, size_t size, size_t block, double seconds, cairn_ceiling *result) {
    memset(result, 0, sizeof *result);
    int bound = LZ4_compressBound((int)block);
    char *target = malloc((size_t)bound);
    if (!target || size < block) {
        free(target);
        return cairn_failed(result, "no memory, or less data than a block");
    }
    uint64_t packed = 0;
    size_t at = 0;
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    double end = start.clock + seconds;
    while (cairn_clock() < end) {
        if (at + block > size) at = 0;
        packed += (uint64_t)LZ4_compress_default((const char *)data + at, target, (int)block, bound);
        at += block;
        result->bytes += block;
        result->operations++;
    }
    cairn_meter_stop(start, RUSAGE_THREAD, result);
    result->ratio = packed ? (double)result->bytes / (double)packed : 0;
    free(target);
    return 0;
}

int cairn_ceiling_lz4_decompress(const void *data, size_t size, size_t block, double seconds, cairn_ceiling *result) {
    memset(result, 0, sizeof *result);
    int bound = LZ4_compressBound((int)block);
    size_t count = size / block;
    char *packed = malloc(count * (size_t)bound + 1), *target = malloc(block);
    int *lengths = calloc(count + 1, sizeof *lengths);
    uint64_t sum = 0;
    int ok = packed && target && lengths && count > 0;
    for (size_t number = 0; ok && number < count; number++) {
        lengths[number] = LZ4_compress_default(
            (const char *)data + number * block, packed + number * (size_t)bound, (int)block, bound);
        sum += (uint64_t)lengths[number];
    }
    size_t number = 0;
    cairn_meter start = cairn_meter_now(RUSAGE_THREAD);
    double end = start.clock + seconds;
    while (ok && cairn_clock() < end) {
        int length = LZ4_decompress_safe(packed + number * (size_t)bound, target, lengths[number], (int)block);
        ok = length == (int)block;
        number = (number + 1) % count;
        result->bytes += block;
        result->operations++;
    }
    cairn_meter_stop(start, RUSAGE_THREAD, result);
    result->ratio = sum ? (double)(count * block) / (double)sum : 0;
    free(packed);
    free(target);
    free(lengths);
    return ok ? 0 : cairn_failed(result, "LZ4 data did not decode");
}
