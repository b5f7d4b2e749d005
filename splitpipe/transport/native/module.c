/* The module _tree: see splitpipe.transport.native.twin. */
#define SP_IMPORTS_NUMPY
#include "tree.h"

static PyObject *
tree_address(PyObject *Py_UNUSED(module), PyObject *array)
{
    if (!PyArray_Check(array)) {
        PyErr_SetString(PyExc_TypeError, "only arrays have an address");
        return NULL;
    }
    return PyLong_FromVoidPtr(PyArray_DATA((PyArrayObject *)array));
}

static PyMethodDef tree_functions[] = {
    {"address", tree_address, METH_O, NULL},
    {"write", sp_write, METH_VARARGS, NULL},
    {"read", sp_read, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int
tree_exec(PyObject *Py_UNUSED(module))
{
    import_array1(-1);
    return 0;
}

static PyModuleDef_Slot tree_slots[] = {
    {Py_mod_exec, tree_exec},
    {0, NULL},
};

static struct PyModuleDef tree_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_tree",
    .m_methods = tree_functions,
    .m_slots = tree_slots,
};

PyMODINIT_FUNC
PyInit__tree(void)
{
    return PyModuleDef_Init(&tree_module);
}
