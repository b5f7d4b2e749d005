/* What both directions share: the marks of nodes, and which numbers an array may have. */
#ifndef SPLITPIPE_TREE_H
#define SPLITPIPE_TREE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define PY_ARRAY_UNIQUE_SYMBOL splitpipe_tree_numpy
#ifndef SP_IMPORTS_NUMPY
#define NO_IMPORT_ARRAY
#endif
#include <numpy/arrayobject.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "trees are little-endian; the twin in Python reads them anywhere"
#endif

#define SP_MARK 'T'
#define SP_REMEMBERED 0x80

enum sp_kind {
    SP_NONE = 'N',
    SP_TRUE = 'Y',
    SP_FALSE = 'F',
    SP_INT8 = '1',
    SP_INT32 = '4',
    SP_INT64 = '8',
    SP_FLOAT = 'd',
    SP_COMPLEX = 'c',
    SP_ASCII = 'a',
    SP_TEXT = 'u',
    SP_BYTES = 'b',
    SP_TUPLE = '(',
    SP_LIST = '[',
    SP_DICT = '{',
    SP_ARRAY = 'A',
    SP_SCALAR = 'n',
    SP_AGAIN = 'r',
};

enum { SP_FORTRAN = 1, SP_ELSEWHERE = 2 };

/* Where an array lies that is elsewhere: in which segment (from 1), from where, how long. */
typedef struct {
    uint64_t segment, offset, nbytes;
} sp_place;

/* Deeper trees are left to pickle: it knows how to complain. */
#define SP_DEPTH 200

/* Whether arrays of these numbers are plain: what the letter of their type says completely. */
static inline int
sp_plain_type(int number)
{
    return (number >= NPY_BOOL && number <= NPY_CLONGDOUBLE) || number == NPY_HALF;
}

PyObject *sp_drain(PyObject *module, PyObject *descriptor);
PyObject *sp_write(PyObject *module, PyObject *arguments);
PyObject *sp_read(PyObject *module, PyObject *arguments);

#endif
