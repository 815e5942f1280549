#ifndef CAIRN_CHECKSUM_H
#define CAIRN_CHECKSUM_H
#include <stddef.h>
#include <stdint.h>
/* CRC-32C (Castagnoli, reflected, as in RFC 3720 B.4): extends `crc` (0 to begin) over `n` bytes.
   Uses SSE4.2 or ARMv8 CRC instructions, three streams at a time, where the machine has them. */
uint32_t cairn_crc32c(uint32_t crc, const void *data, size_t n);
/* The portable table version: the reference that tests compare with. */
uint32_t cairn_crc32c_portable(uint32_t crc, const void *data, size_t n);
/* The CRC of A followed by the `n` bytes of B, of the CRCs of both. */
uint32_t cairn_crc32c_join(uint32_t a, uint32_t b, size_t n);
#endif
