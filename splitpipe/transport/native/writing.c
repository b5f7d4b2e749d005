/* A tree of plain values into bytes.
 *
 * Responsible for: `write`. It looks at exact types only, so that no code of anybody's runs, and
 * the whole is done at one instant: no other thread changes a list that is being written.
 *
 * An object that more than one may refer to is remembered under a number, and written as that number
 * when it comes again: what was one object is one object for the reader. As marshal does, this goes
 * by reference counts: what one list alone refers to is not looked up.
 */
#include "tree.h"

#define FIRST_NBYTES 1000
#define FIRST_ENTRIES 64

typedef enum { WRITTEN, NOT_PLAIN, FAILED } outcome;

typedef struct {
    PyObject *object; /* borrowed: the tree holds it */
    uint32_t number;
    uint32_t open; /* a tuple whose items are being written */
} entry;

typedef struct {
    PyObject *stream; /* bytes, longer than what is written */
    char *top, *end;
    entry *memo; /* open addressing, a power of two of entries */
    size_t memo_size, remembered;
    PyArrayObject **arrays; /* those elsewhere, borrowed */
    size_t count, room;
    Py_ssize_t limit;
    int depth;
    entry first[FIRST_ENTRIES];
} writer;

static outcome node(writer *w, PyObject *value);

/* Make room for `nbytes` more. */
static int
grow(writer *w, size_t nbytes)
{
    size_t used = (size_t)(w->top - PyBytes_AS_STRING(w->stream));
    if (nbytes > PY_SSIZE_T_MAX / 4) {
        PyErr_NoMemory();
        return -1;
    }
    if (_PyBytes_Resize(&w->stream, (Py_ssize_t)(FIRST_NBYTES + used + used / 2 + nbytes)) < 0) {
        return -1;
    }
    w->top = PyBytes_AS_STRING(w->stream) + used;
    w->end = PyBytes_AS_STRING(w->stream) + PyBytes_GET_SIZE(w->stream);
    return 0;
}

static inline int
need(writer *w, size_t nbytes)
{
    return (size_t)(w->end - w->top) >= nbytes ? 0 : grow(w, nbytes);
}

/* After `need`. */
static inline void
put(writer *w, const void *data, size_t nbytes)
{
    memcpy(w->top, data, nbytes);
    w->top += nbytes;
}

static inline outcome
put_number(writer *w, int kind, const void *data, size_t nbytes)
{
    if (need(w, 1 + nbytes) < 0) {
        return FAILED;
    }
    *w->top++ = (char)kind;
    put(w, data, nbytes);
    return WRITTEN;
}

/* A kind, a length, and as many bytes. */
static outcome
put_sized(writer *w, int kind, const void *data, Py_ssize_t nbytes)
{
    if ((uint64_t)nbytes > UINT32_MAX) {
        return NOT_PLAIN;
    }
    uint32_t length = (uint32_t)nbytes;
    if (need(w, 5 + (size_t)nbytes) < 0) {
        return FAILED;
    }
    *w->top++ = (char)kind;
    put(w, &length, sizeof length);
    put(w, data, (size_t)nbytes);
    return WRITTEN;
}

/* The entry of an object, or the free one where it belongs. */
static entry *
find(entry *memo, size_t size, PyObject *object)
{
    size_t at = ((uintptr_t)object >> 4) * UINT64_C(0x9E3779B97F4A7C15) >> 32;
    while (memo[at & (size - 1)].object != NULL && memo[at & (size - 1)].object != object) {
        at++;
    }
    return &memo[at & (size - 1)];
}

static int
grow_memo(writer *w)
{
    size_t size = 4 * w->memo_size;
    entry *memo = PyMem_Calloc(size, sizeof *memo);
    if (memo == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (size_t at = 0; at < w->memo_size; at++) {
        if (w->memo[at].object != NULL) {
            *find(memo, size, w->memo[at].object) = w->memo[at];
        }
    }
    if (w->memo != w->first) {
        PyMem_Free(w->memo);
    }
    w->memo = memo;
    w->memo_size = size;
    return 0;
}

/* Whether anybody but the container that holds it may refer to an object. */
static inline int
may_come_again(PyObject *object)
{
#ifdef Py_GIL_DISABLED
    (void)object;
    return 1;
#else
    return Py_REFCNT(object) > 1;
#endif
}

/* Write the number of an object that was written before (1), or see that it is remembered (0), with
 * `*flag` for its kind; -1: an error, -2: not plain. */
static int
seen_before(writer *w, PyObject *object, int *flag, int open)
{
    *flag = 0;
    if (!may_come_again(object)) {
        return 0;
    }
    entry *found = find(w->memo, w->memo_size, object);
    if (found->object != NULL) {
        if (found->open) {
            return -2; /* a tuple in itself */
        }
        return put_number(w, SP_AGAIN, &found->number, sizeof found->number) == WRITTEN ? 1 : -1;
    }
    if (w->remembered == UINT32_MAX) {
        return -2;
    }
    *found = (entry){object, (uint32_t)w->remembered++, (uint32_t)open};
    *flag = SP_REMEMBERED;
    return 2 * w->remembered > w->memo_size ? grow_memo(w) : 0;
}

static outcome
put_int(writer *w, PyObject *value)
{
    int overflow;
    int64_t number = PyLong_AsLongLongAndOverflow(value, &overflow);
    if (overflow) {
        return NOT_PLAIN;
    }
    if (number == (int8_t)number) {
        return put_number(w, SP_INT8, &number, 1);
    }
    if (number == (int32_t)number) {
        return put_number(w, SP_INT32, &number, 4);
    }
    return put_number(w, SP_INT64, &number, 8);
}

static outcome
put_text(writer *w, PyObject *value, int flag)
{
    if (PyUnicode_IS_ASCII(value)) {
        return put_sized(w, SP_ASCII | flag, PyUnicode_1BYTE_DATA(value),
                         PyUnicode_GET_LENGTH(value));
    }
    Py_ssize_t nbytes;
    const char *data = PyUnicode_AsUTF8AndSize(value, &nbytes);
    if (data == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return FAILED;
        }
        PyErr_Clear(); /* half of a surrogate pair */
        return NOT_PLAIN;
    }
    return put_sized(w, SP_TEXT | flag, data, nbytes);
}

/* Take note of an array that does not travel in the stream. */
static int
leave_out(writer *w, PyArrayObject *array)
{
    if (w->count == w->room) {
        size_t room = 2 * w->room + 16;
        PyArrayObject **arrays = PyMem_Realloc(w->arrays, room * sizeof *arrays);
        if (arrays == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        w->arrays = arrays;
        w->room = room;
    }
    w->arrays[w->count++] = array;
    return 0;
}

static outcome
put_array(writer *w, PyArrayObject *array, int flag)
{
    PyArray_Descr *type = PyArray_DESCR(array);
    int fortran = !PyArray_IS_C_CONTIGUOUS(array), dims = PyArray_NDIM(array);
    if (!sp_plain_type(type->type_num) || !PyArray_ISNBO(type->byteorder)
        || PyDataType_METADATA(type) != NULL
        || (fortran && !PyArray_IS_F_CONTIGUOUS(array))) {
        return NOT_PLAIN;
    }
    Py_ssize_t nbytes = PyArray_NBYTES(array);
    int elsewhere = nbytes >= w->limit;
    int flags = (fortran ? SP_FORTRAN : 0) | (elsewhere ? SP_ELSEWHERE : 0);
    if (need(w, 4 + 8 * (size_t)dims + (elsewhere ? 0 : (size_t)nbytes)) < 0) {
        return FAILED;
    }
    *w->top++ = (char)(SP_ARRAY | flag);
    *w->top++ = type->type;
    *w->top++ = (char)flags;
    *w->top++ = (char)dims;
    for (int axis = 0; axis < dims; axis++) {
        int64_t length = PyArray_DIM(array, axis);
        put(w, &length, sizeof length);
    }
    if (elsewhere) {
        return leave_out(w, array) < 0 ? FAILED : WRITTEN;
    }
    put(w, PyArray_DATA(array), (size_t)nbytes);
    return WRITTEN;
}

/* One of numpy's own types: a class of somebody else's may run code when it is asked what it is. */
static outcome
put_scalar(writer *w, PyObject *value)
{
    if (Py_TYPE(value)->tp_flags & Py_TPFLAGS_HEAPTYPE) {
        return NOT_PLAIN;
    }
    PyArray_Descr *type = PyArray_DescrFromScalar(value);
    if (type == NULL) {
        return FAILED;
    }
    outcome made = NOT_PLAIN;
    if (sp_plain_type(type->type_num) && PyArray_ISNBO(type->byteorder)
        && type->typeobj == Py_TYPE(value)) {
        size_t nbytes = (size_t)PyDataType_ELSIZE(type);
        made = need(w, 2 + nbytes) < 0 ? FAILED : WRITTEN;
        if (made == WRITTEN) {
            *w->top++ = SP_SCALAR;
            *w->top++ = type->type;
            PyArray_ScalarAsCtype(value, w->top);
            w->top += nbytes;
        }
    }
    Py_DECREF(type);
    return made;
}

static outcome
put_items(writer *w, PyObject *const *items, Py_ssize_t count)
{
    outcome made = WRITTEN;
    for (Py_ssize_t at = 0; at < count && made == WRITTEN; at++) {
        made = node(w, items[at]);
    }
    return made;
}

static outcome
put_dict(writer *w, PyObject *value)
{
    PyObject *key, *item;
    Py_ssize_t at = 0;
    outcome made = WRITTEN;
    while (made == WRITTEN && PyDict_Next(value, &at, &key, &item)) {
        made = node(w, key);
        if (made == WRITTEN) {
            made = node(w, item);
        }
    }
    return made;
}

static outcome
put_container(writer *w, PyObject *value, int kind, Py_ssize_t count, int flag)
{
    if ((uint64_t)count > UINT32_MAX || w->depth == SP_DEPTH) {
        return NOT_PLAIN;
    }
    uint32_t length = (uint32_t)count;
    outcome made = put_number(w, kind | flag, &length, sizeof length);
    if (made != WRITTEN) {
        return made;
    }
    w->depth++;
    if (kind == SP_DICT) {
        made = put_dict(w, value);
    }
    else if (kind == SP_LIST) {
        made = put_items(w, ((PyListObject *)value)->ob_item, count);
    }
    else {
        made = put_items(w, ((PyTupleObject *)value)->ob_item, count);
        if (flag) {
            find(w->memo, w->memo_size, value)->open = 0;
        }
    }
    w->depth--;
    return made;
}

/* What is one object however often it is referred to. */
static outcome
shared(writer *w, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    int flag, seen = seen_before(w, value, &flag, type == &PyTuple_Type);
    if (seen) {
        return seen == 1 ? WRITTEN : seen == -1 ? FAILED : NOT_PLAIN;
    }
    if (type == &PyUnicode_Type) {
        return put_text(w, value, flag);
    }
    if (type == &PyArray_Type) {
        return put_array(w, (PyArrayObject *)value, flag);
    }
    if (type == &PyDict_Type) {
        return put_container(w, value, SP_DICT, PyDict_GET_SIZE(value), flag);
    }
    if (type == &PyList_Type) {
        return put_container(w, value, SP_LIST, PyList_GET_SIZE(value), flag);
    }
    if (type == &PyTuple_Type) {
        return put_container(w, value, SP_TUPLE, PyTuple_GET_SIZE(value), flag);
    }
    return put_sized(w, SP_BYTES | flag, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value));
}

static outcome
node(writer *w, PyObject *value)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyUnicode_Type || type == &PyArray_Type || type == &PyDict_Type
        || type == &PyList_Type || type == &PyTuple_Type || type == &PyBytes_Type) {
        return shared(w, value);
    }
    if (type == &PyLong_Type) {
        return put_int(w, value);
    }
    if (type == &PyFloat_Type) {
        double number = PyFloat_AS_DOUBLE(value);
        return put_number(w, SP_FLOAT, &number, sizeof number);
    }
    if (value == Py_None || type == &PyBool_Type) {
        int kind = value == Py_None ? SP_NONE : value == Py_True ? SP_TRUE : SP_FALSE;
        return put_number(w, kind, "", 0);
    }
    if (type == &PyComplex_Type) {
        Py_complex number = PyComplex_AsCComplex(value);
        double parts[2] = {number.real, number.imag};
        return put_number(w, SP_COMPLEX, parts, sizeof parts);
    }
    return PyArray_IsScalar(value, Generic) ? put_scalar(w, value) : NOT_PLAIN;
}

/* Where an array lies: in one of the segments, or (segment 0) nowhere yet. */
static sp_place
place_of(PyArrayObject *array, PyObject *spans)
{
    uint64_t nbytes = (uint64_t)PyArray_NBYTES(array);
    uint64_t address = (uint64_t)(uintptr_t)PyArray_DATA(array);
    for (Py_ssize_t at = 0; at + 1 < PyTuple_GET_SIZE(spans); at += 2) {
        uint64_t begin = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(spans, at));
        uint64_t length = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(spans, at + 1));
        if (address >= begin && address - begin <= length && nbytes <= length - (address - begin)) {
            return (sp_place){(uint64_t)at / 2 + 1, address - begin, nbytes};
        }
    }
    return (sp_place){0, 0, nbytes};
}

/* The places of all arrays that are elsewhere; those without one go into `*outside`, with their
 * numbers. */
static PyObject *
places_of(writer *w, PyObject *spans, PyObject **outside, uint64_t *total)
{
    PyObject *places = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(w->count * sizeof(sp_place)));
    for (size_t at = 0; places != NULL && at < w->count; at++) {
        sp_place place = place_of(w->arrays[at], spans);
        memcpy(PyBytes_AS_STRING(places) + at * sizeof place, &place, sizeof place);
        *total += place.nbytes;
        if (place.segment) {
            continue;
        }
        if (*outside == NULL) {
            *outside = PyList_New(0);
        }
        PyObject *pair = *outside == NULL ? NULL : Py_BuildValue("nO", (Py_ssize_t)at, w->arrays[at]);
        if (pair == NULL || PyList_Append(*outside, pair) < 0) {
            Py_CLEAR(places);
        }
        Py_XDECREF(pair);
    }
    if (places == NULL || PyErr_Occurred()) {
        Py_CLEAR(*outside);
        Py_CLEAR(places);
        return NULL;
    }
    return places;
}

static PyObject *
finished(writer *w, PyObject *spans)
{
    PyObject *outside = NULL;
    uint64_t total = 0;
    Py_ssize_t used = w->top - PyBytes_AS_STRING(w->stream);
    PyObject *places = places_of(w, spans, &outside, &total);
    if (places == NULL) {
        return NULL;
    }
    if (_PyBytes_Resize(&w->stream, used) < 0) {
        Py_DECREF(places);
        Py_XDECREF(outside);
        return NULL;
    }
    for (size_t at = 0; at < w->count; at++) {
        sp_place place;
        memcpy(&place, PyBytes_AS_STRING(places) + at * sizeof place, sizeof place);
        if (place.segment) { /* it is its reader's now: writing to it is an error, not a race */
            PyArray_CLEARFLAGS(w->arrays[at], NPY_ARRAY_WRITEABLE);
        }
    }
    PyObject *stream = w->stream;
    w->stream = NULL;
    return Py_BuildValue("NNNK", stream, places, outside == NULL ? Py_NewRef(Py_None) : outside,
                         (unsigned long long)total);
}

PyObject *
sp_write(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *value, *spans;
    writer w;
    if (!PyArg_ParseTuple(arguments, "OnO!:write", &value, &w.limit, &PyTuple_Type, &spans)) {
        return NULL;
    }
    memset(w.first, 0, sizeof w.first);
    w.memo = w.first;
    w.memo_size = FIRST_ENTRIES;
    w.remembered = w.count = w.room = 0;
    w.arrays = NULL;
    w.depth = 0;
    w.stream = PyBytes_FromStringAndSize(NULL, FIRST_NBYTES);
    if (w.stream == NULL) {
        return NULL;
    }
    w.top = PyBytes_AS_STRING(w.stream);
    w.end = w.top + FIRST_NBYTES;
    *w.top++ = SP_MARK;
    outcome made = node(&w, value);
    PyObject *found = NULL;
    if (made == WRITTEN) {
        found = finished(&w, spans);
    }
    else if (made == NOT_PLAIN) {
        found = Py_NewRef(Py_None);
    }
    if (w.memo != w.first) {
        PyMem_Free(w.memo);
    }
    PyMem_Free(w.arrays);
    Py_XDECREF(w.stream);
    return found;
}
