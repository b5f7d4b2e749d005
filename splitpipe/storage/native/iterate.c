/* Records one after the other, each made when it is asked for.
 *
 * Responsible for: the iterator that `Column.iterate` gives.
 *
 * A list of records is made in memory that has left the first cache by the time it is looked at. A
 * single record is made, used and dropped in the same place, and while the caller works on it the
 * next ones are on their way from memory: 1,000,000 records of 100 to 300 bytes in 54 ns each
 * instead of 100, of which 26 are the caller's loop. The same loop takes 59 to copy them unchecked
 * into new objects of one size, and 37 to copy and check them where all is in the first cache.
 *
 * Rules: as in column.c, and
 * - a plan is good only as long as no bin was attached or detached since;
 * - what is not plainly right, and what is not in memory, is left to a function of the caller's,
 *   which gives the first of the rows that are left, at least one, or raises.
 */
#include "column.h"

/* How many records ahead entries and payloads are fetched: a turn of the caller's loop takes
 * several times as long as a copy. */
#define ENTRIES_AHEAD 8
#define RECORDS_AHEAD 8
/* Plans that are kept: a power of two, more than `RECORDS_AHEAD`. */
#define PLANS 16

typedef struct {
    sp_step step;
    uint32_t number;
    int fits;
} sp_planned;

/* A record that was given, and how long another one in its place may be. */
typedef struct {
    PyObject *record;
    Py_ssize_t room;
} sp_spare;

typedef struct {
    PyObject_HEAD
    sp_column *column;
    PyObject *blocks;
    PyObject *read_some;
    PyObject *given; /* records that `read_some` gave */
    Py_ssize_t given_at;
    PyObject *block;
    Py_buffer view; /* of `block`, while that is there */
    const int64_t *rows;
    Py_ssize_t count;
    Py_ssize_t at;      /* the next one to give */
    Py_ssize_t planned; /* the next one to plan */
    uint64_t changes;   /* the column's, when planning began */
    int busy;
    sp_planned plans[PLANS];
    sp_spare spares[2];
} sp_iterator;

static void
drop_block(sp_iterator *self)
{
    self->count = self->at = self->planned = 0;
    if (self->block != NULL) {
        PyBuffer_Release(&self->view);
        Py_CLEAR(self->block);
    }
}

/* The next block that is not empty: 1, or 0 at the end, or -1 with a Python error. */
static int
next_block(sp_iterator *self)
{
    do {
        drop_block(self);
        PyObject *block = self->blocks == NULL ? NULL : PyIter_Next(self->blocks);
        if (block == NULL) {
            return PyErr_Occurred() ? -1 : 0;
        }
        if (sp_rows(block, &self->view) < 0) {
            Py_DECREF(block);
            return -1;
        }
        self->block = block;
        self->rows = self->view.buf;
        self->count = self->view.shape[0];
    } while (self->count == 0);
    return 1;
}

/* Leave the rest of the block to the caller's function, for as many rows as it gives. */
static int
look_closer(sp_iterator *self)
{
    PyObject *rest = PySequence_GetSlice(self->block, self->at, self->count);
    PyObject *given = rest == NULL ? NULL : PyObject_CallOneArg(self->read_some, rest);
    Py_XDECREF(rest);
    if (given == NULL) {
        return -1;
    }
    Py_ssize_t count = PyList_Check(given) ? PyList_GET_SIZE(given) : 0;
    if (count < 1 || count > self->count - self->at) {
        Py_DECREF(given);
        PyErr_SetString(PyExc_ValueError, "a list of one record or more was to be given");
        return -1;
    }
    self->planned = self->at += count;
    self->given_at = 0;
    Py_XSETREF(self->given, given);
    return 0;
}

/* Plan what is needed next and what is needed soon, and let it come. */
static inline void
plan_ahead(sp_iterator *self)
{
    sp_column *column = self->column;
    if (self->changes != column->changes) {
        self->changes = column->changes;
        self->planned = self->at;
    }
    Py_ssize_t stop = self->at + RECORDS_AHEAD + 1;
    stop = stop < self->count ? stop : self->count;
    for (; self->planned < stop; self->planned++) {
        sp_planned *plan = &self->plans[self->planned % PLANS];
        int64_t row = self->rows[self->planned];
        sp_entry entry;
        if (self->planned + ENTRIES_AHEAD < self->count) {
            sp_fetch_entry(column, self->rows[self->planned + ENTRIES_AHEAD]);
        }
        plan->fits = sp_locate(column, row, &entry) && sp_plan(column, row, &entry, &plan->step);
        if (plan->fits) {
            plan->number = entry.number;
            sp_fetch_lines(plan->step.source, column->lines);
        }
    }
}

/* --- objects -------------------------------------------------------------------------------- */

#ifndef Py_GIL_DISABLED

/* Make a bytes object that nobody else knows shorter, or as long again as it was. */
static void
set_length(PyObject *record, Py_ssize_t length)
{
    _Py_COMP_DIAG_PUSH
    _Py_COMP_DIAG_IGNORE_DEPR_DECLS
    ((PyBytesObject *)record)->ob_shash = -1;
    _Py_COMP_DIAG_POP
    Py_SET_SIZE(record, length);
    PyBytes_AS_STRING(record)[length] = 0;
}

/* A bytes object of a length: the one before the last, if the caller has dropped it.
 *
 * As zip() does it with its tuples: an object whose only reference is ours is nobody's, and may
 * become another one. Allocating one of another length and freeing it takes 13 ns of 60. Whoever
 * keeps records gets objects of exactly their length; one that is dropped is replaced by one with
 * room for most others. */
static PyObject *
new_record(sp_iterator *self, Py_ssize_t length)
{
    const Py_ssize_t room = 64 * (Py_ssize_t)self->column->lines;
    if (length == 0 || length > room) {
        return PyBytes_FromStringAndSize(NULL, length);
    }
    sp_spare *spare = &self->spares[self->at & 1];
    const int dropped = spare->record != NULL && Py_REFCNT(spare->record) == 1;
    if (!dropped || length > spare->room) {
        spare->room = dropped ? room : length;
        Py_XSETREF(spare->record, PyBytes_FromStringAndSize(NULL, spare->room));
        if (spare->record == NULL || spare->room == length) {
            return Py_XNewRef(spare->record);
        }
    }
    set_length(spare->record, length);
    return Py_NewRef(spare->record);
}

#else

static PyObject *
new_record(sp_iterator *Py_UNUSED(self), Py_ssize_t length)
{
    return PyBytes_FromStringAndSize(NULL, length);
}

#endif

static void
drop_spares(sp_iterator *self)
{
    Py_CLEAR(self->spares[0].record);
    Py_CLEAR(self->spares[1].record);
}

/* --- iterating ------------------------------------------------------------------------------ */

/* See that there are records, given or in the block: 1, or 0 at the end, or -1 with a Python
 * error. */
static int
refill(sp_iterator *self)
{
    Py_CLEAR(self->given);
    int found = self->at < self->count ? 1 : next_block(self);
    if (found > 0 && sp_probe(self->column, self->rows + self->at, self->count - self->at)) {
        return look_closer(self) < 0 ? -1 : 1;
    }
    return found;
}

static PyObject *
next_record(sp_iterator *self)
{
    for (;;) {
        if (self->given != NULL && self->given_at < PyList_GET_SIZE(self->given)) {
            return Py_NewRef(PyList_GET_ITEM(self->given, self->given_at++));
        }
        if ((self->given != NULL || self->at >= self->count) && refill(self) <= 0) {
            return NULL;
        }
        if (self->given != NULL) {
            continue;
        }
        plan_ahead(self);
        sp_planned *plan = &self->plans[self->at % PLANS];
        if (plan->fits) {
            PyObject *record = new_record(self, (Py_ssize_t)plan->step.length);
            if (record == NULL) {
                return NULL;
            }
            if (sp_fill(self->column, &plan->step, plan->number, record)) {
                self->at++;
                return record;
            }
            Py_DECREF(record);
        }
        if (look_closer(self) < 0) {
            return NULL;
        }
    }
}

static void
let_go(sp_iterator *self)
{
    drop_block(self);
    drop_spares(self);
    Py_CLEAR(self->blocks);
    Py_CLEAR(self->read_some);
    Py_CLEAR(self->given);
}

static PyObject *
iterator_next(sp_iterator *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_ValueError, "the iterator is already at work, in another thread");
        return NULL;
    }
    self->busy = 1;
    PyObject *record = next_record(self);
    self->busy = 0;
    if (record == NULL) {
        /* The end, or an error, after which there is nothing more, as with a generator. */
        let_go(self);
    }
    return record;
}

static int
iterator_traverse(sp_iterator *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->column);
    Py_VISIT(self->blocks);
    Py_VISIT(self->read_some);
    Py_VISIT(self->given);
    Py_VISIT(self->block);
    return 0;
}

static int
iterator_clear(sp_iterator *self)
{
    let_go(self);
    return 0;
}

static void
iterator_dealloc(sp_iterator *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    iterator_clear(self);
    Py_XDECREF(self->column);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot iterator_slots[] = {
    {Py_tp_dealloc, iterator_dealloc},
    {Py_tp_traverse, iterator_traverse},
    {Py_tp_clear, iterator_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, iterator_next},
    {0, NULL},
};

PyType_Spec sp_iterator_spec = {
    .name = "splitpipe.storage.native._kernel.RecordIterator",
    .basicsize = sizeof(sp_iterator),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = iterator_slots,
};

PyObject *
sp_column_iterate(sp_column *self, PyTypeObject *defining, PyObject *const *arguments,
                  Py_ssize_t count, PyObject *names)
{
    if (count != 2 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "iterate takes blocks of rows and a function");
        return NULL;
    }
    PyTypeObject *type = ((sp_state *)PyType_GetModuleState(defining))->iterator;
    PyObject *blocks = PyObject_GetIter(arguments[0]);
    sp_iterator *made = blocks == NULL ? NULL : (sp_iterator *)type->tp_alloc(type, 0);
    if (made == NULL) {
        Py_XDECREF(blocks);
        return NULL;
    }
    made->column = (sp_column *)Py_NewRef(self);
    made->blocks = blocks;
    made->read_some = Py_NewRef(arguments[1]);
    return (PyObject *)made;
}
