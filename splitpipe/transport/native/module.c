/* The module _kernel: see splitpipe.transport.native.twin. */
#define SP_IMPORTS_NUMPY
#include "tree.h"

static PyObject *
kernel_address(PyObject *Py_UNUSED(module), PyObject *array)
{
    if (!PyArray_Check(array)) {
        PyErr_SetString(PyExc_TypeError, "only arrays have an address");
        return NULL;
    }
    return PyLong_FromVoidPtr(PyArray_DATA((PyArrayObject *)array));
}

static PyMethodDef kernel_functions[] = {
    {"address", kernel_address, METH_O, NULL},
    {"drain", sp_drain, METH_O, NULL},
    {"write", sp_write, METH_VARARGS, NULL},
    {"read", sp_read, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
kernel_exec(PyObject *module)
{
    import_array1(-1);
    return PyModule_AddStringConstant(module, "NAME", "native");
}

static PyModuleDef_Slot kernel_slots[] = {
    {Py_mod_exec, kernel_exec},
    {0, NULL},
};

static struct PyModuleDef kernel_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_kernel",
    .m_methods = kernel_functions,
    .m_slots = kernel_slots,
};

PyMODINIT_FUNC
PyInit__kernel(void)
{
    return PyModuleDef_Init(&kernel_module);
}
