/* Bytes into a tree of plain values.
 *
 * Responsible for: `read`. The bytes come from a process of our own, and are still looked at one by
 * one: nothing is read beyond their end, and no memory is taken for what they could not hold.
 */
#include "tree.h"

typedef struct {
    const char *at, *end;
    const sp_place *places;
    size_t place, place_count;
    PyObject *held; /* list of flat arrays of bytes */
    PyObject **memo;
    size_t remembered, room;
    int depth;
} reader;

static PyObject *node(reader *r);

static PyObject *
broken(const char *why)
{
    PyErr_Format(PyExc_ValueError, "%s: a fault of splitpipe", why);
    return NULL;
}

static inline int
has(reader *r, size_t nbytes)
{
    if ((size_t)(r->end - r->at) >= nbytes) {
        return 1;
    }
    broken("a tree ends in the middle");
    return 0;
}

/* Take `nbytes` into `to`; 0 where they are not there. */
static inline int
take(reader *r, void *to, size_t nbytes)
{
    if (!has(r, nbytes)) {
        return 0;
    }
    memcpy(to, r->at, nbytes);
    r->at += nbytes;
    return 1;
}

/* Keep the next number for an object; -1: no memory. */
static Py_ssize_t
number_for(reader *r, int flag)
{
    if (!flag) {
        return 0;
    }
    if (r->remembered == r->room) {
        size_t room = 2 * r->room + 32;
        PyObject **memo = PyMem_Realloc(r->memo, room * sizeof *memo);
        if (memo == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        r->memo = memo;
        r->room = room;
    }
    r->memo[r->remembered] = NULL;
    return (Py_ssize_t)r->remembered++;
}

static inline PyObject *
remembered(reader *r, PyObject *made, int flag, Py_ssize_t number)
{
    if (flag && made != NULL) {
        r->memo[number] = Py_NewRef(made);
    }
    return made;
}

static PyObject *
again(reader *r)
{
    uint32_t number;
    if (!take(r, &number, sizeof number)) {
        return NULL;
    }
    if (number >= r->remembered || r->memo[number] == NULL) {
        return broken("a tree refers to what it does not have");
    }
    return Py_NewRef(r->memo[number]);
}

static PyObject *
whole_number(reader *r, size_t nbytes)
{
    int8_t one;
    int32_t four;
    int64_t eight;
    if (nbytes == 1) {
        return take(r, &one, 1) ? PyLong_FromLong(one) : NULL;
    }
    if (nbytes == 4) {
        return take(r, &four, 4) ? PyLong_FromLong(four) : NULL;
    }
    return take(r, &eight, 8) ? PyLong_FromLongLong(eight) : NULL;
}

static PyObject *
text(reader *r, int kind)
{
    uint32_t nbytes;
    if (!take(r, &nbytes, sizeof nbytes) || !has(r, nbytes)) {
        return NULL;
    }
    const char *data = r->at;
    r->at += nbytes;
    if (kind == SP_BYTES) {
        return PyBytes_FromStringAndSize(data, nbytes);
    }
    return kind == SP_TEXT ? PyUnicode_DecodeUTF8(data, nbytes, NULL)
                           : PyUnicode_DecodeASCII(data, nbytes, NULL);
}

/* Where the bytes of the next array that is elsewhere lie, and in `*owner` what holds them. */
static char *
found_elsewhere(reader *r, uint64_t nbytes, PyObject **owner)
{
    if (r->place == r->place_count) {
        return (char *)broken("a tree has more arrays than places");
    }
    const sp_place *place = &r->places[r->place++];
    if (place->segment == 0 || place->segment > (uint64_t)PyList_GET_SIZE(r->held)) {
        return (char *)broken("an array lies in no segment");
    }
    *owner = PyList_GET_ITEM(r->held, (Py_ssize_t)place->segment - 1);
    PyArrayObject *flat = (PyArrayObject *)*owner;
    if (!PyArray_CheckExact(*owner) || !PyArray_IS_C_CONTIGUOUS(flat)) {
        return (char *)broken("a segment is no array of bytes");
    }
    uint64_t size = (uint64_t)PyArray_NBYTES(flat);
    if (place->nbytes != nbytes || place->offset > size || nbytes > size - place->offset) {
        return (char *)broken("an array does not lie in its segment");
    }
    return PyArray_BYTES(flat) + place->offset;
}

/* The bytes of an array of that shape, or -1: more than there can be. */
static int64_t
nbytes_of(const npy_intp *shape, int dims, int64_t itemsize)
{
    int64_t nbytes = itemsize;
    int none = 0;
    for (int axis = 0; axis < dims; axis++) {
        if (shape[axis] < 0) {
            return -1;
        }
        if (shape[axis] == 0) {
            none = 1;
        }
        else if (nbytes > (INT64_MAX >> 8) / shape[axis]) {
            return -1;
        }
        else {
            nbytes *= shape[axis];
        }
    }
    return none ? 0 : nbytes;
}

static PyArray_Descr *
type_of(char letter)
{
    PyArray_Descr *type = strchr("?bBhHiIlLqQefdgFDG", letter) == NULL || letter == '\0'
                              ? NULL
                              : PyArray_DescrFromType(letter);
    if (type == NULL && !PyErr_Occurred()) {
        broken("an array of unknown numbers");
    }
    return type;
}

/* An array over bytes that `owner` holds; takes over the reference to `type`. */
static PyObject *
view(PyArray_Descr *type, int dims, npy_intp *shape, int flags, char *data, PyObject *owner)
{
    int order = flags & SP_FORTRAN ? NPY_ARRAY_F_CONTIGUOUS : NPY_ARRAY_C_CONTIGUOUS;
    int writeable = PyArray_ISWRITEABLE((PyArrayObject *)owner) ? NPY_ARRAY_WRITEABLE : 0;
    PyObject *made = PyArray_NewFromDescr(&PyArray_Type, type, dims, shape, NULL, data,
                                          order | writeable, NULL);
    if (made != NULL && PyArray_SetBaseObject((PyArrayObject *)made, Py_NewRef(owner)) < 0) {
        Py_CLEAR(made);
    }
    if (made != NULL) {
        PyArray_UpdateFlags((PyArrayObject *)made, NPY_ARRAY_UPDATE_ALL);
    }
    return made;
}

static PyObject *
array(reader *r)
{
    unsigned char head[3];
    npy_intp shape[NPY_MAXDIMS];
    if (!take(r, head, sizeof head)) {
        return NULL;
    }
    int flags = head[1], dims = head[2];
    if (dims > NPY_MAXDIMS) {
        return broken("an array of too many axes");
    }
    for (int axis = 0; axis < dims; axis++) {
        int64_t length;
        if (!take(r, &length, sizeof length)) {
            return NULL;
        }
        shape[axis] = (npy_intp)length;
    }
    PyArray_Descr *type = type_of((char)head[0]);
    if (type == NULL) {
        return NULL;
    }
    int64_t nbytes = nbytes_of(shape, dims, PyDataType_ELSIZE(type));
    PyObject *made = NULL, *owner = NULL;
    if (nbytes < 0) {
        Py_DECREF(type);
        return broken("an array of impossible shape");
    }
    if (flags & SP_ELSEWHERE) {
        char *data = found_elsewhere(r, (uint64_t)nbytes, &owner);
        if (data == NULL) {
            Py_DECREF(type);
            return NULL;
        }
        made = view(type, dims, shape, flags, data, owner);
    }
    else if (!has(r, (size_t)nbytes)) {
        Py_DECREF(type);
    }
    else {
        made = PyArray_Empty(dims, shape, type, flags & SP_FORTRAN);
        if (made != NULL && nbytes) {
            memcpy(PyArray_DATA((PyArrayObject *)made), r->at, (size_t)nbytes);
        }
        r->at += nbytes;
    }
    return made;
}

static PyObject *
scalar(reader *r)
{
    char letter;
    if (!take(r, &letter, 1)) {
        return NULL;
    }
    PyArray_Descr *type = type_of(letter);
    if (type == NULL) {
        return NULL;
    }
    size_t nbytes = (size_t)PyDataType_ELSIZE(type);
    PyObject *made = NULL;
    long double aligned[2];
    if (nbytes <= sizeof aligned && take(r, aligned, nbytes)) {
        made = PyArray_Scalar(aligned, type, NULL);
    }
    Py_DECREF(type);
    return made;
}

static PyObject *
dict(reader *r, PyObject *made, uint32_t count)
{
    for (uint32_t at = 0; at < count; at++) {
        PyObject *key = node(r);
        PyObject *item = key == NULL ? NULL : node(r);
        int failed = item == NULL || PyDict_SetItem(made, key, item) < 0;
        Py_XDECREF(key);
        Py_XDECREF(item);
        if (failed) {
            Py_DECREF(made);
            return NULL;
        }
    }
    return made;
}

static PyObject *
items(reader *r, PyObject *made, uint32_t count, int kind)
{
    for (uint32_t at = 0; at < count; at++) {
        PyObject *item = node(r);
        if (item == NULL) {
            Py_DECREF(made);
            return NULL;
        }
        if (kind == SP_LIST) {
            PyList_SET_ITEM(made, at, item);
        }
        else {
            PyTuple_SET_ITEM(made, at, item);
        }
    }
    return made;
}

static PyObject *
container(reader *r, int kind, int flag, Py_ssize_t number)
{
    uint32_t count;
    if (!take(r, &count, sizeof count) || !has(r, count)) { /* an item takes a byte at least */
        return NULL;
    }
    if (r->depth == SP_DEPTH) {
        return broken("a tree is too deep");
    }
    PyObject *made = kind == SP_DICT ? PyDict_New() : kind == SP_LIST ? PyList_New(count)
                                                                       : PyTuple_New(count);
    if (made == NULL) {
        return NULL;
    }
    if (kind != SP_TUPLE) { /* it may be in itself; a tuple is nowhere before it is whole */
        remembered(r, made, flag, number);
    }
    r->depth++;
    made = kind == SP_DICT ? dict(r, made, count) : items(r, made, count, kind);
    r->depth--;
    return kind == SP_TUPLE ? remembered(r, made, flag, number) : made;
}

/* A node that is no container. */
static PyObject *
leaf(reader *r, int kind)
{
    double parts[2];
    switch (kind) {
    case SP_ASCII:
    case SP_TEXT:
    case SP_BYTES:
        return text(r, kind);
    case SP_ARRAY:
        return array(r);
    case SP_AGAIN:
        return again(r);
    case SP_INT8:
        return whole_number(r, 1);
    case SP_INT32:
        return whole_number(r, 4);
    case SP_INT64:
        return whole_number(r, 8);
    case SP_FLOAT:
        return take(r, parts, 8) ? PyFloat_FromDouble(parts[0]) : NULL;
    case SP_COMPLEX:
        return take(r, parts, 16) ? PyComplex_FromDoubles(parts[0], parts[1]) : NULL;
    case SP_NONE:
        return Py_NewRef(Py_None);
    case SP_TRUE:
        return Py_NewRef(Py_True);
    case SP_FALSE:
        return Py_NewRef(Py_False);
    case SP_SCALAR:
        return scalar(r);
    default:
        return broken("a tree of unknown kinds");
    }
}

static PyObject *
node(reader *r)
{
    unsigned char mark;
    if (!take(r, &mark, 1)) {
        return NULL;
    }
    int flag = mark & SP_REMEMBERED, kind = mark & ~SP_REMEMBERED;
    Py_ssize_t number = number_for(r, flag);
    if (number < 0) {
        return NULL;
    }
    if (kind == SP_TUPLE || kind == SP_LIST || kind == SP_DICT) {
        return container(r, kind, flag, number);
    }
    return remembered(r, leaf(r, kind), flag, number);
}

static PyObject *
read_all(reader *r)
{
    char mark;
    if (!take(r, &mark, 1)) {
        return NULL;
    }
    if (mark != SP_MARK) {
        return broken("this is no tree");
    }
    PyObject *made = node(r);
    if (made != NULL && (r->at != r->end || r->place != r->place_count)) {
        Py_DECREF(made);
        return broken("a tree has too much");
    }
    return made;
}

PyObject *
sp_read(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer stream, places;
    reader r;
    memset(&r, 0, sizeof r);
    if (!PyArg_ParseTuple(arguments, "y*y*O!:read", &stream, &places, &PyList_Type, &r.held)) {
        return NULL;
    }
    r.at = stream.buf;
    r.end = r.at + stream.len;
    r.place_count = (size_t)places.len / sizeof(sp_place);
    /* They stand behind something else in a message: not where a processor wants such numbers. */
    sp_place few[8], *all = r.place_count <= 8 ? few : PyMem_Malloc((size_t)places.len);
    PyObject *made = NULL;
    if (all == NULL) {
        PyErr_NoMemory();
    }
    else {
        memcpy(all, places.buf, r.place_count * sizeof(sp_place));
        r.places = all;
        made = read_all(&r);
    }
    if (all != few) {
        PyMem_Free(all);
    }
    while (r.remembered) {
        Py_XDECREF(r.memo[--r.remembered]);
    }
    PyMem_Free(r.memo);
    PyBuffer_Release(&places);
    PyBuffer_Release(&stream);
    return made;
}
