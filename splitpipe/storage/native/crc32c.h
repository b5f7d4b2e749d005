/* CRC32C (Castagnoli), alone and while copying.
 *
 * Responsible for: the fastest way of this machine, chosen when the module is loaded.
 *
 * Rules:
 * - checksums are the usual ones, as google_crc32c gives them: the start value is the checksum of
 *   what came before, 0 for nothing; any length, any alignment;
 * - `copy` returns the checksum of the bytes that it wrote: they are read once, so that a source
 *   that changes meanwhile cannot give good bytes a bad checksum or the other way round;
 * - constants are computed from the polynomial when the module is loaded, never written down.
 */
#ifndef SPLITPIPE_CRC32C_H
#define SPLITPIPE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;
    int (*supported)(void);
    uint32_t (*value)(uint32_t start, const uint8_t *src, size_t nbytes);
    /* `next` is what will be read after this, to be fetched meanwhile; any address will do. */
    uint32_t (*copy)(uint32_t start, uint8_t *dst, const uint8_t *src, size_t nbytes,
                     const uint8_t *next);
} sp_crc32c;

/* All ways that were compiled, the fastest first, the last one's name NULL. */
extern const sp_crc32c sp_crc32c_ways[];

/* The way of this machine. */
extern sp_crc32c sp_crc;

/* Compute tables and constants and choose; call once, before anything else here. */
void sp_crc32c_init(void);

#endif
