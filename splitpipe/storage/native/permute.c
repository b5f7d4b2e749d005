/* The keyed bijection of `splitpipe.permutation`, number by number.
 *
 * Responsible for: `permuted`. What is computed is defined there, and held to it by its tests: a
 * Feistel network over the numbers of some bits, walked until the result is small enough. A number
 * costs 5 ns here and 30 there, of the 60 that a record of a shuffled epoch may cost.
 */
#include "column.h"

#define ROUNDS 6

typedef struct {
    int low_bits, high_bits;
    uint64_t size;
    uint32_t keys[ROUNDS];
} network_t;

/* The finaliser of MurmurHash3. */
static inline uint32_t
stir(uint32_t value)
{
    value ^= value >> 16;
    value *= UINT32_C(0x85EBCA6B);
    value ^= value >> 13;
    return value * UINT32_C(0xC2B2AE35);
}

static inline uint64_t
pass(const network_t *network, uint64_t value)
{
    int low_bits = network->low_bits, high_bits = network->high_bits;
    uint32_t low = (uint32_t)(value & ((UINT64_C(1) << low_bits) - 1));
    uint32_t high = (uint32_t)(value >> low_bits);
    for (int number = 0; number < ROUNDS; number += 2) {
        high ^= stir(low ^ network->keys[number]) >> (32 - high_bits);
        low ^= stir(high ^ network->keys[number + 1]) >> (32 - low_bits);
    }
    return (uint64_t)high << low_bits | low;
}

/* First all once, side by side; then those that fell outside, each to its end. */
static void
fill(const network_t *given, uint64_t start, uint64_t *out, Py_ssize_t count)
{
    const network_t network = *given;
    for (Py_ssize_t at = 0; at < count; at++) {
        out[at] = pass(&network, start + (uint64_t)at);
    }
    for (Py_ssize_t at = 0; at < count; at++) {
        while (out[at] >= network.size) {
            out[at] = pass(&network, out[at]);
        }
    }
}

/* The network, or a Python error: every walk must end. */
static int
make_network(network_t *network, unsigned long long size, int bits, PyObject *keys)
{
    if (bits < 2 || bits > 62 || PyTuple_GET_SIZE(keys) != ROUNDS || size == 0
        || size > UINT64_C(1) << bits) {
        PyErr_SetString(PyExc_ValueError, "there is no such permutation");
        return -1;
    }
    network->size = size;
    network->low_bits = bits / 2;
    network->high_bits = bits - bits / 2;
    for (int number = 0; number < ROUNDS; number++) {
        unsigned long key = PyLong_AsUnsignedLong(PyTuple_GET_ITEM(keys, number));
        if (PyErr_Occurred()) {
            return -1;
        }
        network->keys[number] = (uint32_t)key;
    }
    return 0;
}

PyObject *
sp_permuted(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *given, *keys;
    unsigned long long start, size;
    int bits;
    network_t network;
    Py_buffer out;
    if (!PyArg_ParseTuple(arguments, "OKKiO!:permuted", &given, &start, &size, &bits, &PyTuple_Type,
                          &keys)
        || make_network(&network, size, bits, keys) < 0 || sp_rows(given, &out) < 0) {
        return NULL;
    }
    unsigned long long count = (unsigned long long)out.shape[0];
    PyObject *outcome = NULL;
    if (out.readonly || start > size || count > size - start) {
        PyErr_SetString(PyExc_ValueError, "there is no room, or there are no such positions");
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        fill(&network, start, out.buf, out.shape[0]);
        Py_END_ALLOW_THREADS
        outcome = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&out);
    return outcome;
}
