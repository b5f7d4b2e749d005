/* What the parts of the kernel share: a column's mapped files and the plan of a batch. */
#ifndef SPLITPIPE_COLUMN_H
#define SPLITPIPE_COLUMN_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>

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
    int verify;
    int probes;
} sp_column;

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

/* Look up a row; false if it is no row, or its entry cannot be right. Needs no GIL, but somebody
 * who keeps the index. */
int sp_locate(const sp_column *self, int64_t row, sp_entry *entry);

/* What to do for a row that was located, but for the target; false if its bin is not attached. */
int sp_plan(const sp_column *self, int64_t row, const sp_entry *entry, sp_step *step);

/* Keep the map of a bin for this batch, with the GIL held; `pins` has room for every step. */
void sp_pin(sp_column *self, uint32_t number, PyObject **pins, Py_ssize_t *count);

/* Flat int64 numbers, or a Python error. */
int sp_rows(PyObject *given, Py_buffer *view);

/* Records that are not in memory: see cold.c. */
PyObject *sp_column_fetch(sp_column *self, PyObject *const *arguments, Py_ssize_t count);

/* Positions of a shuffle: see permute.c. */
PyObject *sp_permuted(PyObject *module, PyObject *arguments);

#endif
