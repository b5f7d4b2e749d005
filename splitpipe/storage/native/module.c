/* The module _kernel: the type Column, and checksums by themselves. */
#include "column.h"

#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the kernel reads little-endian files as they are; the twin in Python reads them anywhere"
#endif

extern PyType_Spec sp_column_spec;
extern PyType_Spec sp_decoded_spec;
extern PyType_Spec sp_iterator_spec;

/* Records at most this long are checked with the GIL held. */
#define SHORT_NBYTES 4096

static PyObject *
value_of(const sp_crc32c *way, Py_buffer *data, unsigned int start)
{
    uint32_t crc;
    if (data->len <= SHORT_NBYTES) {
        crc = way->value(start, data->buf, (size_t)data->len);
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        crc = way->value(start, data->buf, (size_t)data->len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(data);
    return PyLong_FromUnsignedLong(crc);
}

static PyObject *
kernel_crc32c(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer data;
    unsigned int start = 0;
    if (!PyArg_ParseTuple(arguments, "y*|I:crc32c", &data, &start)) {
        return NULL;
    }
    return value_of(&sp_crc, &data, start);
}

/* The way of that name, if this machine has it; else NULL with a Python error. */
static const sp_crc32c *
way_of(const char *name)
{
    for (const sp_crc32c *way = sp_crc32c_ways; way->name != NULL; way++) {
        if (strcmp(way->name, name) == 0 && way->supported()) {
            return way;
        }
    }
    PyErr_Format(PyExc_ValueError, "this machine has no way %s", name);
    return NULL;
}

static PyObject *
kernel_crc32c_by(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *name;
    Py_buffer data;
    unsigned int start = 0;
    if (!PyArg_ParseTuple(arguments, "sy*|I:crc32c_by", &name, &data, &start)) {
        return NULL;
    }
    const sp_crc32c *way = way_of(name);
    if (way == NULL) {
        PyBuffer_Release(&data);
        return NULL;
    }
    return value_of(way, &data, start);
}

static PyObject *
kernel_copy_by(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    const char *name;
    Py_buffer out, data;
    unsigned int start = 0;
    if (!PyArg_ParseTuple(arguments, "sw*y*|I:copy_by", &name, &out, &data, &start)) {
        return NULL;
    }
    const sp_crc32c *way = way_of(name);
    PyObject *found = NULL;
    if (way != NULL && out.len < data.len) {
        PyErr_SetString(PyExc_ValueError, "there is no room for the copy");
    }
    else if (way != NULL) {
        found = PyLong_FromUnsignedLong(way->copy(start, out.buf, data.buf, (size_t)data.len, data.buf));
    }
    PyBuffer_Release(&out);
    PyBuffer_Release(&data);
    return found;
}

static PyMethodDef kernel_functions[] = {
    {"crc32c", kernel_crc32c, METH_VARARGS, NULL},
    {"crc32c_by", kernel_crc32c_by, METH_VARARGS, NULL},
    {"copy_by", kernel_copy_by, METH_VARARGS, NULL},
    {"permuted", sp_permuted, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* Names of the ways that this machine has, the fastest first. */
static PyObject *
way_names(void)
{
    PyObject *names = PyList_New(0);
    for (const sp_crc32c *way = sp_crc32c_ways; names != NULL && way->name != NULL; way++) {
        if (!way->supported()) {
            continue;
        }
        PyObject *name = PyUnicode_FromString(way->name);
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    PyObject *all = names == NULL ? NULL : PyList_AsTuple(names);
    Py_XDECREF(names);
    return all;
}

static int
kernel_exec(PyObject *module)
{
    sp_crc32c_init();
    PyObject *ways = way_names();
    if (ways == NULL || PyModule_AddObjectRef(module, "WAYS", ways) < 0) {
        Py_XDECREF(ways);
        return -1;
    }
    Py_DECREF(ways);
    sp_state *state = PyModule_GetState(module);
    state->iterator = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sp_iterator_spec, NULL);
    state->decoded = (PyTypeObject *)PyType_FromModuleAndSpec(module, &sp_decoded_spec, NULL);
    if (state->iterator == NULL || state->decoded == NULL) {
        return -1;
    }
    PyObject *column = PyType_FromModuleAndSpec(module, &sp_column_spec, NULL);
    if (column == NULL) {
        return -1;
    }
    int added = PyModule_AddType(module, (PyTypeObject *)column);
    Py_DECREF(column);
    if (added < 0 || PyModule_AddIntConstant(module, "COLD", -1) < 0
        || PyModule_AddObjectRef(module, "BY_RUNS", Py_False) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "NAME", "native");
}

static PyModuleDef_Slot kernel_slots[] = {
    {Py_mod_exec, kernel_exec},
    {0, NULL},
};

static int
kernel_traverse(PyObject *module, visitproc visit, void *arg)
{
    sp_state *state = PyModule_GetState(module);
    Py_VISIT(state->iterator);
    Py_VISIT(state->decoded);
    return 0;
}

static int
kernel_clear(PyObject *module)
{
    sp_state *state = PyModule_GetState(module);
    Py_CLEAR(state->iterator);
    Py_CLEAR(state->decoded);
    return 0;
}

static struct PyModuleDef kernel_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_size = sizeof(sp_state),
    .m_traverse = kernel_traverse,
    .m_clear = kernel_clear,
    .m_slots = kernel_slots,
    .m_methods = kernel_functions,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    return PyModuleDef_Init(&kernel_module);
}
