/* Records of a mapped column: locate, copy, verify.
 *
 * Responsible for: the type Column, whose meaning is that of `twin.Column`; the module.
 *
 * Rules:
 * - the index and the bins are files that may be damaged or change at any time: a number is read
 *   from them once, and compared with the committed sizes before it is used or anything is
 *   allocated;
 * - only "all is well" is decided here. Anything else is handed back to Python: None, or the
 *   place of the row;
 * - whoever copies without the GIL holds a reference to every map that he reads from (`sp_pin`),
 *   so that detaching a bin or closing in another thread takes nothing away from him;
 * - the GIL is given up twice for every CHUNK records, not for each.
 */
#include "column.h"
#include "gil.h"

#include <errno.h>
#include <string.h>
#if defined(__linux__)
#include <sys/uio.h>
#endif

/* Records that are located, allocated and copied together: the GIL changes hands twice for them.
 * The plan of a few fits on the stack. */
#define CHUNK 2048
#define FEW 256
/* How many records ahead index entries and payloads are fetched: memory answers after about a
 * hundred nanoseconds, in which five to ten records are copied. */
#define ENTRIES_AHEAD 12
#define RECORDS_AHEAD 6
#define MOST_LINES 6
/* A single record of this size is worth giving up the GIL for. */
#define LARGE_RECORD (32 << 10)
/* Batches smaller than this are not probed: announcing them gains nothing. */
#define WORTH_PROBING 4

#define COLD (-1)

_Atomic(PyThreadState *) sp_gil_holder;

/* --- locating ------------------------------------------------------------------------------- */

void
sp_pin(sp_column *self, uint32_t number, PyObject **pins, Py_ssize_t *count)
{
    sp_bin *bin = &self->bins[number];
    if (bin->stamp != self->stamp) {
        bin->stamp = self->stamp;
        pins[(*count)++] = Py_NewRef(bin->holder);
    }
}

/* Whether a record would have to come from the disk; 0 where the system cannot tell. */
static int
is_cold(const sp_column *self, int64_t row)
{
#if defined(RWF_NOWAIT)
    sp_entry entry;
    if (!sp_locate(self, row, &entry) || entry.length == 0) {
        return 0;
    }
    int descriptor = self->bins[entry.number].descriptor;
    if (descriptor < 0) {
        return 0;
    }
    char byte;
    struct iovec vector = {&byte, 1};
    /* The middle: the ends may share a page with a neighbour that was read before. */
    off_t middle = (off_t)(entry.offset + entry.length / 2);
    return preadv2(descriptor, &vector, 1, middle, RWF_NOWAIT) < 0 && errno == EAGAIN;
#else
    (void)self;
    (void)row;
    return 0;
#endif
}

int
sp_probe(sp_column *self, const int64_t *rows, Py_ssize_t count)
{
    if (count < WORTH_PROBING) {
        return 0;
    }
    for (int number = 1; number <= self->probes; number++) {
        if (is_cold(self, rows[(count - 1) * number / (self->probes + 1)])) {
            return 1;
        }
    }
    /* One is enough for as long as all is warm. */
    self->probes = self->probes > 1 ? 1 : self->probes;
    return 0;
}

/* --- copying -------------------------------------------------------------------------------- */

/* Copy and verify; the number of steps that fit, which is `count` if all is well. */
static Py_ssize_t
run(const sp_step *steps, Py_ssize_t count, int lines, int verify)
{
    for (Py_ssize_t at = 0; at < count; at++) {
        const sp_step *step = &steps[at];
        const sp_step *next = at + 1 < count ? step + 1 : step;
        if (at + RECORDS_AHEAD < count) {
            sp_fetch_lines(step[RECORDS_AHEAD].source, lines);
        }
        if (!verify) {
            memcpy(step->target, step->source, step->length);
        }
        else if (sp_crc.copy(step->start, step->target, step->source, step->length, next->source)
                 != step->crc) {
            return at;
        }
    }
    return count;
}

int
sp_fill(sp_column *self, sp_step *step, uint32_t number, PyObject *record)
{
    step->target = (uint8_t *)PyBytes_AS_STRING(record);
    int verify = self->verify;
    if (step->length < LARGE_RECORD) {
        return run(step, 1, 0, verify) == 1;
    }
    PyObject *holder = Py_NewRef(self->bins[number].holder);
    int fits;
    SP_WITHOUT_GIL
    fits = run(step, 1, 0, verify) == 1;
    SP_WITH_GIL_AGAIN
    Py_DECREF(holder);
    return fits;
}

/* A batch: which rows, and where their records go. */
typedef struct {
    const int64_t *rows;
    Py_ssize_t count;
    PyObject *list;  /* of new bytes objects, or NULL */
    uint8_t *target; /* where there is no list: rows of `nbytes` each */
    uint64_t nbytes;
    uint64_t room; /* bytes that may still be taken; the first record always may */
} sp_batch;

/* What became of a chunk. */
enum { ALL_WELL, FULL, MISFIT, FAILED };

/* Find or make the place for a record. */
static int
make_room(sp_batch *batch, Py_ssize_t at, sp_step *step)
{
    if (batch->list == NULL) {
        step->target = batch->target + (uint64_t)at * batch->nbytes;
        return step->length == batch->nbytes ? ALL_WELL : MISFIT;
    }
    if (step->length > batch->room && at > 0) {
        return FULL;
    }
    batch->room -= step->length < batch->room ? step->length : batch->room;
    PyObject *record = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)step->length);
    if (record == NULL) {
        return FAILED;
    }
    PyList_SET_ITEM(batch->list, at, record);
    step->target = (uint8_t *)PyBytes_AS_STRING(record);
    return ALL_WELL;
}

/* Look up a chunk of rows; how many of them are plainly right. */
static Py_ssize_t
locate_all(const sp_column *self, const int64_t *rows, Py_ssize_t count, sp_entry *entries)
{
    for (Py_ssize_t at = 0; at < count; at++) {
        if (at + ENTRIES_AHEAD < count) {
            sp_fetch_entry(self, rows[at + ENTRIES_AHEAD]);
        }
        if (!sp_locate(self, rows[at], &entries[at])) {
            return at;
        }
    }
    return count;
}

/* Where a chunk is planned. */
typedef struct {
    Py_ssize_t size;
    sp_entry *entries;
    sp_step *steps;
    PyObject **pins;
} sp_scratch;

/* One chunk, from row number `first` of the batch on; `done` says how many of it fit. */
static int
gather_chunk(sp_column *self, sp_batch *batch, const sp_scratch *scratch, Py_ssize_t first,
             Py_ssize_t *done)
{
    Py_ssize_t left = batch->count - first, count = left < scratch->size ? left : scratch->size;
    Py_ssize_t pinned = 0, planned = 0, located;
    const int64_t *rows = batch->rows + first;
    int lines = self->lines, verify = self->verify, outcome = ALL_WELL;
    PyObject *kept = Py_XNewRef(self->entries_holder);
    SP_WITHOUT_GIL
    located = locate_all(self, rows, count, scratch->entries);
    SP_WITH_GIL_AGAIN
    Py_XDECREF(kept);
    self->stamp++;
    for (; planned < located; planned++) {
        const sp_entry *entry = &scratch->entries[planned];
        sp_step *step = &scratch->steps[planned];
        outcome = sp_plan(self, rows[planned], entry, step)
                      ? make_room(batch, first + planned, step)
                      : MISFIT;
        if (outcome != ALL_WELL) {
            break;
        }
        sp_pin(self, entry->number, scratch->pins, &pinned);
    }
    *done = 0;
    if (outcome != FAILED) {
        SP_WITHOUT_GIL
        *done = run(scratch->steps, planned, lines, verify);
        SP_WITH_GIL_AGAIN
        if (*done < planned || (outcome == ALL_WELL && located < count)) {
            outcome = MISFIT;
        }
    }
    while (pinned > 0) {
        Py_DECREF(scratch->pins[--pinned]);
    }
    return outcome;
}

/* The whole batch, or as much of it as there is room for; `done` says how much fit. */
static int
gather_chunks(sp_column *self, sp_batch *batch, const sp_scratch *scratch, Py_ssize_t *done)
{
    int outcome = ALL_WELL;
    *done = 0;
    while (outcome == ALL_WELL && *done < batch->count) {
        Py_ssize_t more;
        outcome = gather_chunk(self, batch, scratch, *done, &more);
        *done += more;
    }
    return outcome;
}

static int
gather_few(sp_column *self, sp_batch *batch, Py_ssize_t *done)
{
    sp_entry entries[FEW];
    sp_step steps[FEW];
    PyObject *pins[FEW];
    sp_scratch scratch = {FEW, entries, steps, pins};
    return gather_chunks(self, batch, &scratch, done);
}

static int
gather_many(sp_column *self, sp_batch *batch, Py_ssize_t *done)
{
    Py_ssize_t size = batch->count < CHUNK ? batch->count : CHUNK;
    sp_scratch scratch = {size, PyMem_New(sp_entry, size), PyMem_New(sp_step, size),
                          PyMem_New(PyObject *, size)};
    int outcome = FAILED;
    if (scratch.entries != NULL && scratch.steps != NULL && scratch.pins != NULL) {
        outcome = gather_chunks(self, batch, &scratch, done);
    }
    else {
        PyErr_NoMemory();
    }
    PyMem_Free(scratch.entries);
    PyMem_Free(scratch.steps);
    PyMem_Free(scratch.pins);
    return outcome;
}

static int
gather_all(sp_column *self, sp_batch *batch, Py_ssize_t *done)
{
    if (sp_probe(self, batch->rows, batch->count)) {
        *done = COLD;
        return MISFIT;
    }
    return batch->count <= FEW ? gather_few(self, batch, done) : gather_many(self, batch, done);
}

/* A list of records, or NULL with `place` set, or NULL with a Python error. */
static PyObject *
gather_list(sp_column *self, const int64_t *rows, Py_ssize_t count, uint64_t room,
            Py_ssize_t *place)
{
    sp_batch batch = {rows, count, PyList_New(count), NULL, 0, room};
    if (batch.list == NULL) {
        return NULL;
    }
    /* Unfinished, it is nobody else's business. */
    PyObject_GC_UnTrack(batch.list);
    int outcome = gather_all(self, &batch, place);
    PyObject_GC_Track(batch.list);
    if (outcome == FULL) {
        outcome = PyList_SetSlice(batch.list, *place, count, NULL) < 0 ? FAILED : ALL_WELL;
    }
    if (outcome != ALL_WELL) {
        Py_CLEAR(batch.list);
    }
    return batch.list;
}

/* --- arguments ------------------------------------------------------------------------------ */

static int
is_int64(const Py_buffer *view)
{
    const char *format = view->format;
    if (format == NULL || view->itemsize != 8 || view->ndim != 1) {
        return 0;
    }
    if (*format == '<' || *format == '=' || *format == '@') {
        format++;
    }
    return (*format == 'q' || *format == 'l') && format[1] == 0;
}

int
sp_rows(PyObject *given, Py_buffer *view)
{
    if (PyObject_GetBuffer(given, view, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT) < 0) {
        return -1;
    }
    if (!is_int64(view)) {
        PyBuffer_Release(view);
        PyErr_SetString(PyExc_TypeError, "rows must be a flat array of int64");
        return -1;
    }
    return 0;
}

/* --- methods -------------------------------------------------------------------------------- */

/* A row counted from the start, of an int object; -1 if it is none. */
static inline int64_t
row_of(const sp_column *self, PyObject *index)
{
    if (!PyLong_CheckExact(index)) {
        return -1;
    }
    int overflow;
    long long row = PyLong_AsLongLongAndOverflow(index, &overflow);
    if (overflow) {
        return -1;
    }
    row += row < 0 ? self->rows : 0;
    return row < self->rows ? row : -1;
}

PyObject *
sp_column_get(sp_column *self, PyObject *index)
{
    sp_entry entry;
    sp_step step;
    int64_t row = row_of(self, index);
    if (!sp_locate(self, row, &entry) || !sp_plan(self, row, &entry, &step)) {
        Py_RETURN_NONE;
    }
    sp_fetch_lines(step.source, self->lines);
    PyObject *record = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)step.length);
    if (record != NULL && !sp_fill(self, &step, entry.number, record)) {
        Py_SETREF(record, Py_NewRef(Py_None));
    }
    return record;
}

static PyObject *
column_gather(sp_column *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer view;
    uint64_t room = UINT64_MAX;
    if (count < 1 || count > 2) {
        PyErr_SetString(PyExc_TypeError, "gather takes rows and a number of bytes");
        return NULL;
    }
    if (count == 2) {
        room = PyLong_AsUnsignedLongLong(arguments[1]);
        if (PyErr_Occurred()) {
            return NULL;
        }
    }
    if (sp_rows(arguments[0], &view) < 0) {
        return NULL;
    }
    Py_ssize_t place = 0;
    PyObject *found = gather_list(self, view.buf, view.shape[0], room, &place);
    PyBuffer_Release(&view);
    return found != NULL || PyErr_Occurred() ? found : PyLong_FromSsize_t(place);
}

/* Row numbers of a list or tuple of int objects, or of a flat array of int64; 0 if `given` is
 * something else, or holds something else. */
static int
fill_rows(const sp_column *self, PyObject *given, int64_t *rows)
{
    if (PyList_CheckExact(given) || PyTuple_CheckExact(given)) {
        Py_ssize_t count = PySequence_Fast_GET_SIZE(given);
        PyObject **items = PySequence_Fast_ITEMS(given);
        for (Py_ssize_t at = 0; at < count; at++) {
            rows[at] = row_of(self, items[at]);
            if (rows[at] < 0) {
                return 0;
            }
        }
        return 1;
    }
    Py_buffer view;
    if (sp_rows(given, &view) < 0) {
        PyErr_Clear();
        return 0;
    }
    const int64_t *items = view.buf;
    int64_t wrong = 0;
    for (Py_ssize_t at = 0; at < view.shape[0]; at++) {
        int64_t row = items[at];
        row += row < 0 ? self->rows : 0;
        rows[at] = row;
        wrong |= (row < 0) | (row >= self->rows);
    }
    PyBuffer_Release(&view);
    return !wrong;
}

static PyObject *
column_take(sp_column *self, PyObject *given)
{
    int64_t few[FEW];
    Py_ssize_t count = PyObject_Size(given);
    if (count < 0) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    int64_t *rows = count <= FEW ? few : PyMem_New(int64_t, count);
    if (rows == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *found = NULL;
    if (fill_rows(self, given, rows)) {
        Py_ssize_t place;
        found = gather_list(self, rows, count, UINT64_MAX, &place);
    }
    if (rows != few) {
        PyMem_Free(rows);
    }
    return found != NULL || PyErr_Occurred() ? found : Py_NewRef(Py_None);
}

static PyObject *
column_gather_into(sp_column *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer rows, out;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "gather_into takes rows and an array");
        return NULL;
    }
    if (sp_rows(arguments[0], &rows) < 0) {
        return NULL;
    }
    if (PyObject_GetBuffer(arguments[1], &out, PyBUF_WRITABLE) < 0) {
        PyBuffer_Release(&rows);
        return NULL;
    }
    int outcome = MISFIT;
    Py_ssize_t length = rows.shape[0], done;
    if (length == 0) {
        outcome = out.len == 0 ? ALL_WELL : MISFIT;
    }
    else if (out.len % length == 0) {
        sp_batch batch = {rows.buf, length, NULL, out.buf, (uint64_t)(out.len / length), 0};
        outcome = gather_all(self, &batch, &done);
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&rows);
    return outcome == FAILED ? NULL : PyBool_FromLong(outcome == ALL_WELL);
}

/* The bin of that number, or NULL with a Python error. */
static sp_bin *
bin_of(sp_column *self, PyObject *number)
{
    Py_ssize_t found = PyNumber_AsSsize_t(number, PyExc_IndexError);
    if (found == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (found < 0 || found >= (Py_ssize_t)self->bin_count) {
        PyErr_Format(PyExc_IndexError, "there is no bin %zd", found);
        return NULL;
    }
    return &self->bins[found];
}

static int
descriptor_of(PyObject *descriptor)
{
    if (descriptor == Py_None) {
        return -1;
    }
    PyObject *number = PyObject_GetAttrString(descriptor, "number");
    if (number == NULL) {
        return -1;
    }
    long found = PyLong_AsLong(number);
    Py_DECREF(number);
    return (int)found;
}

static PyObject *
column_attach(sp_column *self, PyObject *const *arguments, Py_ssize_t count)
{
    if (count < 2 || count > 3) {
        PyErr_SetString(PyExc_TypeError, "attach takes a bin's number, its map and a descriptor");
        return NULL;
    }
    sp_bin *bin = bin_of(self, arguments[0]);
    if (bin == NULL) {
        return NULL;
    }
    PyObject *kept = count == 3 ? arguments[2] : Py_None;
    int descriptor = descriptor_of(kept);
    if (PyErr_Occurred()) {
        return NULL;
    }
    PyObject *view = PyMemoryView_GetContiguous(arguments[1], PyBUF_READ, 'C');
    if (view == NULL) {
        return NULL;
    }
    const Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
    if ((uint64_t)buffer->len != bin->size) {
        Py_DECREF(view);
        PyErr_SetString(PyExc_ValueError, "the map must have the committed size of its bin");
        return NULL;
    }
    PyObject *holder = PyTuple_Pack(2, view, kept);
    Py_DECREF(view);
    if (holder == NULL) {
        return NULL;
    }
    self->changes++;
    bin->base = buffer->buf;
    bin->descriptor = descriptor;
    Py_XSETREF(bin->holder, holder);
    Py_RETURN_NONE;
}

static PyObject *
column_detach(sp_column *self, PyObject *number)
{
    sp_bin *bin = bin_of(self, number);
    if (bin == NULL) {
        return NULL;
    }
    self->changes++;
    bin->descriptor = -1;
    Py_CLEAR(bin->holder);
    Py_RETURN_NONE;
}

static PyObject *
column_close(sp_column *self, PyObject *Py_UNUSED(nothing))
{
    self->rows = 0;
    self->changes++;
    for (uint32_t number = 0; number < self->bin_count; number++) {
        self->bins[number].descriptor = -1;
        Py_CLEAR(self->bins[number].holder);
    }
    Py_CLEAR(self->entries_holder);
    Py_RETURN_NONE;
}

/* --- the type ------------------------------------------------------------------------------- */

static int
fill_bins(sp_column *self, PyObject *sizes, PyObject *seeds)
{
    Py_ssize_t count = PySequence_Fast_GET_SIZE(sizes);
    if (count != PySequence_Fast_GET_SIZE(seeds) || (uint64_t)count >= UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "sizes and seeds must be as many as there are bins");
        return -1;
    }
    self->bins = PyMem_Calloc((size_t)count + 1, sizeof(sp_bin));
    if (self->bins == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->bin_count = (uint32_t)count;
    for (Py_ssize_t number = 0; number < count; number++) {
        sp_bin *bin = &self->bins[number];
        bin->descriptor = -1;
        bin->size = PyLong_AsUnsignedLongLong(PySequence_Fast_GET_ITEM(sizes, number));
        bin->seed = (uint32_t)PyLong_AsUnsignedLong(PySequence_Fast_GET_ITEM(seeds, number));
        if (PyErr_Occurred()) {
            return -1;
        }
    }
    return 0;
}

/* How many lines of 64 bytes a record has: those of half as much again as the average one, and one
 * more because it begins anywhere. A record's own number of them would be guessed wrongly as often
 * as its length is another one. */
static int
lines_of(const sp_column *self)
{
    double nbytes = 0;
    for (uint32_t number = 0; number < self->bin_count; number++) {
        nbytes += (double)self->bins[number].size;
    }
    double lines = self->rows > 0 ? nbytes / (double)self->rows * 1.5 / 64 : 0;
    return lines < MOST_LINES - 2 ? (int)lines + 2 : MOST_LINES;
}

static PyObject *
column_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"entries", "sizes", "seeds", "verify", NULL};
    PyObject *entries, *sizes, *seeds;
    int verify;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO$p:Column", names, &entries, &sizes,
                                     &seeds, &verify)) {
        return NULL;
    }
    sp_column *self = (sp_column *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->verify = verify;
    self->probes = 3;
    self->entries_holder = PyMemoryView_GetContiguous(entries, PyBUF_READ, 'C');
    sizes = PySequence_Fast(sizes, "sizes must be a sequence");
    seeds = PySequence_Fast(seeds, "seeds must be a sequence");
    int fine = self->entries_holder != NULL && sizes != NULL && seeds != NULL
               && fill_bins(self, sizes, seeds) == 0;
    Py_XDECREF(sizes);
    Py_XDECREF(seeds);
    if (!fine) {
        Py_DECREF(self);
        return NULL;
    }
    const Py_buffer *buffer = PyMemoryView_GET_BUFFER(self->entries_holder);
    self->entries = buffer->buf;
    self->rows = buffer->len / SP_ENTRY_NBYTES;
    self->lines = lines_of(self);
    return (PyObject *)self;
}

static void
column_dealloc(sp_column *self)
{
    PyTypeObject *type = Py_TYPE(self);
    for (uint32_t number = 0; number < self->bin_count; number++) {
        Py_XDECREF(self->bins[number].holder);
    }
    PyMem_Free(self->bins);
    Py_XDECREF(self->entries_holder);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
column_get_probes(sp_column *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->probes);
}

static int
column_set_probes(sp_column *self, PyObject *value, void *Py_UNUSED(closure))
{
    long probes = value == NULL ? -1 : PyLong_AsLong(value);
    if (probes < 0 || probes > 64) {
        PyErr_Clear();
        PyErr_SetString(PyExc_ValueError, "probes must be a number from 0 to 64");
        return -1;
    }
    self->probes = (int)probes;
    return 0;
}

#define CALL(function) ((PyCFunction)(void (*)(void))(function))

/* The documentation of each stands in twin.py. */
static PyMethodDef column_methods[] = {
    {"attach", CALL(column_attach), METH_FASTCALL, NULL},
    {"close", CALL(column_close), METH_NOARGS, NULL},
    {"decoded", CALL(sp_column_decoded), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {"detach", CALL(column_detach), METH_O, NULL},
    {"fetch", CALL(sp_column_fetch), METH_FASTCALL, NULL},
    {"gather", CALL(column_gather), METH_FASTCALL, NULL},
    {"gather_into", CALL(column_gather_into), METH_FASTCALL, NULL},
    {"get", CALL(sp_column_get), METH_O, NULL},
    {"iterate", CALL(sp_column_iterate), METH_METHOD | METH_FASTCALL | METH_KEYWORDS, NULL},
    {"take", CALL(column_take), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef column_attributes[] = {
    {"probes", (getter)column_get_probes, (setter)column_set_probes, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot column_slots[] = {
    {Py_tp_new, column_new},
    {Py_tp_dealloc, column_dealloc},
    {Py_tp_methods, column_methods},
    {Py_tp_getset, column_attributes},
    {0, NULL},
};

PyType_Spec sp_column_spec = {
    .name = "splitpipe.storage.native._kernel.Column",
    .basicsize = sizeof(sp_column),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = column_slots,
};
