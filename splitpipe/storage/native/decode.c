/* A short way from a row to a value that a function makes of its record.
 *
 * Responsible for: the callable that `Column.decoded` gives.
 *
 * Rules:
 * - a function is never used by two callers at once: it is taken, used and put back, or thrown away
 *   if it failed; taking and putting are under the GIL;
 * - only "all is well" is decided here: whatever else, also an exception of the function, is None.
 */
#include "column.h"

/* Functions that are kept for the next callers: as many as threads that read at the same time. */
#define MOST_IDLE 8

typedef struct {
    PyObject_HEAD
    vectorcallfunc call;
    sp_column *column;
    PyObject *make;
    long limit; /* of the first byte */
    int idle_count;
    PyObject *idle[MOST_IDLE];
} sp_decoded;

/* The value of a record, or NULL with a Python error. */
static PyObject *
decode(sp_decoded *self, PyObject *record)
{
    PyObject *function = self->idle_count > 0 ? self->idle[--self->idle_count]
                                              : PyObject_CallNoArgs(self->make);
    if (function == NULL) {
        return NULL;
    }
    PyObject *value = PyObject_CallOneArg(function, record);
    if (value != NULL && self->idle_count < MOST_IDLE) {
        self->idle[self->idle_count++] = function;
    }
    else {
        Py_DECREF(function);
    }
    return value;
}

static PyObject *
decoded_call(sp_decoded *self, PyObject *const *arguments, size_t given, PyObject *names)
{
    if (PyVectorcall_NARGS(given) != 1 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "a row is taken, and nothing else");
        return NULL;
    }
    PyObject *record = sp_column_get(self->column, arguments[0]);
    if (record == NULL || record == Py_None) {
        return record;
    }
    if (PyBytes_GET_SIZE(record) == 0 || (uint8_t)*PyBytes_AS_STRING(record) >= self->limit) {
        Py_DECREF(record);
        Py_RETURN_NONE;
    }
    PyObject *value = decode(self, record);
    Py_DECREF(record);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_Exception)) {
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    return value;
}

static int
decoded_traverse(sp_decoded *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->column);
    Py_VISIT(self->make);
    for (int at = 0; at < self->idle_count; at++) {
        Py_VISIT(self->idle[at]);
    }
    return 0;
}

static int
decoded_clear(sp_decoded *self)
{
    while (self->idle_count > 0) {
        Py_DECREF(self->idle[--self->idle_count]);
    }
    return 0;
}

static void
decoded_dealloc(sp_decoded *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    decoded_clear(self);
    Py_XDECREF(self->column);
    Py_XDECREF(self->make);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef decoded_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(sp_decoded, call), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot decoded_slots[] = {
    {Py_tp_dealloc, decoded_dealloc}, {Py_tp_traverse, decoded_traverse},
    {Py_tp_clear, decoded_clear},     {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, decoded_members}, {0, NULL},
};

PyType_Spec sp_decoded_spec = {
    .name = "splitpipe.storage.native._kernel.Decoded",
    .basicsize = sizeof(sp_decoded),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE
             | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = decoded_slots,
};

PyObject *
sp_column_decoded(sp_column *self, PyTypeObject *defining, PyObject *const *arguments,
                  Py_ssize_t count, PyObject *names)
{
    if (count != 2 || (names != NULL && PyTuple_GET_SIZE(names) != 0)) {
        PyErr_SetString(PyExc_TypeError, "decoded takes a function and a number");
        return NULL;
    }
    long limit = PyLong_AsLong(arguments[1]);
    if (limit == -1 && PyErr_Occurred()) {
        return NULL;
    }
    PyTypeObject *type = ((sp_state *)PyType_GetModuleState(defining))->decoded;
    sp_decoded *made = (sp_decoded *)type->tp_alloc(type, 0);
    if (made == NULL) {
        return NULL;
    }
    made->call = (vectorcallfunc)(void (*)(void))decoded_call;
    made->column = (sp_column *)Py_NewRef(self);
    made->make = Py_NewRef(arguments[0]);
    made->limit = limit;
    return (PyObject *)made;
}
