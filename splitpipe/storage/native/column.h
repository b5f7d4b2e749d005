/* What the parts of the kernel share: a column's mapped files and the plan of a batch. */
#ifndef SPLITPIPE_COLUMN_H
#define SPLITPIPE_COLUMN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>
#include <stdint.h>
#include <string.h>

#include "crc32c.h"

/* One bin. `holder` keeps its map and its descriptor; NULL while it is not attached. */
typedef struct {
    PyObject *holder;
    const uint8_t *base;
    uint64_t size;
    uint64_t stamp; /* the last batch that pinned it */
    uint32_t seed;
    int descriptor; /* -1: none */
} sp_bin;

typedef struct {
    PyObject_HEAD
    PyObject *entries_holder;
    const uint8_t *entries;
    int64_t rows;
    sp_bin *bins;
    uint32_t bin_count;
    uint64_t stamp;
    uint64_t changes; /* how often a bin was attached or detached */
    int verify;
    int probes;
    int lines; /* of a record, that are worth fetching ahead */
} sp_column;

/* What a module has of its own. */
typedef struct {
    PyTypeObject *iterator;
    PyTypeObject *decoded;
} sp_state;

/* One record of a batch: what to copy where, and what the checksum must be. */
typedef struct {
    const uint8_t *source;
    uint8_t *target;
    uint64_t length;
    uint32_t start;
    uint32_t crc;
} sp_step;

/* The parts of an index entry; see docs/format.md. */
typedef struct {
    uint64_t offset, length;
    uint32_t number, crc;
} sp_entry;

#define SP_ENTRY_NBYTES 24
#define SP_FIRST_OFFSET (64 + 14)

/* How a place is mixed into a start value; see docs/format.md. */
#define OFFSET_FACTOR UINT64_C(0x9E3779B97F4A7C15)
#define ROW_FACTOR UINT64_C(0xBF58476D1CE4E5B9)

static inline void
sp_read_entry(const sp_column *self, int64_t row, sp_entry *entry)
{
    const uint8_t *at = self->entries + row * SP_ENTRY_NBYTES;
    memcpy(&entry->offset, at, 8);
    memcpy(&entry->length, at + 8, 8);
    memcpy(&entry->number, at + 16, 4);
    memcpy(&entry->crc, at + 20, 4);
}

/* Look up a row; false if it is no row, or its entry cannot be right. Needs no GIL, but somebody
 * who keeps the index. */
static inline int
sp_locate(const sp_column *self, int64_t row, sp_entry *entry)
{
    if ((uint64_t)row >= (uint64_t)self->rows) {
        return 0;
    }
    sp_read_entry(self, row, entry);
    if (entry->number >= self->bin_count) {
        return 0;
    }
    uint64_t size = self->bins[entry->number].size;
    return entry->offset >= SP_FIRST_OFFSET && entry->offset <= size
           && entry->length <= size - entry->offset && entry->length <= (uint64_t)PY_SSIZE_T_MAX;
}

/* What to do for a row that was located, but for the target; false if its bin is not attached. */
static inline int
sp_plan(const sp_column *self, int64_t row, const sp_entry *entry, sp_step *step)
{
    const sp_bin *bin = &self->bins[entry->number];
    if (bin->holder == NULL) {
        return 0;
    }
    step->source = bin->base + entry->offset;
    step->length = entry->length;
    uint64_t mixed = entry->offset * OFFSET_FACTOR + (uint64_t)row * ROW_FACTOR;
    step->start = bin->seed ^ (uint32_t)(mixed >> 32);
    step->crc = entry->crc;
    return 1;
}

/* Keep the map of a bin for this batch, with the GIL held; `pins` has room for every step. */
void sp_pin(sp_column *self, uint32_t number, PyObject **pins, Py_ssize_t *count);

/* Copy one record as planned into a bytes object of its length; whether it fits its checksum. The
 * GIL is given up meanwhile for a large one. */
int sp_fill(sp_column *self, sp_step *step, uint32_t number, PyObject *record);

/* One record by an int object; None means: look closer. */
PyObject *sp_column_get(sp_column *self, PyObject *index);

/* Whether one of a few records, spread over a batch, is not in memory. */
int sp_probe(sp_column *self, const int64_t *rows, Py_ssize_t count);

/* Fetch what will be read soon; any address will do. */
static inline void
sp_fetch_lines(const uint8_t *source, int lines)
{
    for (int line = 0; line < lines; line++) {
        __builtin_prefetch((const char *)source + 64 * line);
    }
}

static inline void
sp_fetch_entry(const sp_column *self, int64_t row)
{
    __builtin_prefetch(self->entries + (uint64_t)row * SP_ENTRY_NBYTES);
}

/* Flat int64 numbers, or a Python error. */
int sp_rows(PyObject *given, Py_buffer *view);

/* Records that are not in memory: see cold.c. */
PyObject *sp_column_fetch(sp_column *self, PyObject *const *arguments, Py_ssize_t count);

/* An iterator over records: see iterate.c. */
PyObject *sp_column_iterate(sp_column *self, PyTypeObject *defining, PyObject *const *arguments,
                            Py_ssize_t count, PyObject *names);

/* Values made of records: see decode.c. */
PyObject *sp_column_decoded(sp_column *self, PyTypeObject *defining, PyObject *const *arguments,
                            Py_ssize_t count, PyObject *names);

/* Positions of a shuffle: see permute.c. */
PyObject *sp_permuted(PyObject *module, PyObject *arguments);

#endif
