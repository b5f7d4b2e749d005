/* Slots that came back, all at once.
 *
 * Responsible for: `drain`. One call of the system, where asking whether there is one, taking it and
 * asking again are three, and code in Python around them that a batch has driven out of the caches.
 */
#define _GNU_SOURCE
#include "tree.h"

#include <errno.h>
#include <sys/socket.h>

/* Taken in one call of the system; few, since their heads are memory that has to be there. */
#define MOST 16

#ifdef __linux__
/* How many messages were taken, one after the other in `numbers`; the end of it all is one of no
 * bytes. */
static int
take_some(int descriptor, uint32_t *numbers, int *ended)
{
    struct mmsghdr messages[MOST];
    struct iovec parts[MOST];
    memset(messages, 0, sizeof messages);
    for (int at = 0; at < MOST; at++) {
        parts[at] = (struct iovec){&numbers[at], sizeof numbers[at]};
        messages[at].msg_hdr.msg_iov = &parts[at];
        messages[at].msg_hdr.msg_iovlen = 1;
    }
    int taken = recvmmsg(descriptor, messages, MOST, MSG_DONTWAIT, NULL);
    for (int at = 0; at < taken; at++) {
        if (messages[at].msg_len == 0) {
            *ended = 1;
            return at;
        }
    }
    return taken;
}
#else
static int
take_some(int descriptor, uint32_t *numbers, int *ended)
{
    int taken = 0;
    while (taken < MOST) {
        ssize_t nbytes = recv(descriptor, &numbers[taken], sizeof numbers[taken], MSG_DONTWAIT);
        if (nbytes < 0) {
            return taken ? taken : -1;
        }
        if (nbytes == 0) {
            *ended = 1;
            break;
        }
        taken++;
    }
    return taken;
}
#endif

/* Add some to a list. */
static int
append_all(PyObject *found, const uint32_t *numbers, int count)
{
    for (int at = 0; at < count; at++) {
        PyObject *number = PyLong_FromUnsignedLong(numbers[at]);
        if (number == NULL || PyList_Append(found, number) < 0) {
            Py_XDECREF(number);
            return -1;
        }
        Py_DECREF(number);
    }
    return 0;
}

PyObject *
sp_drain(PyObject *Py_UNUSED(module), PyObject *given)
{
    uint32_t numbers[MOST];
    int ended = 0, taken;
    long descriptor = PyLong_AsLong(given);
    PyObject *found = descriptor == -1 && PyErr_Occurred() ? NULL : PyList_New(0);
    if (found == NULL) {
        return NULL;
    }
    do {
        taken = take_some((int)descriptor, numbers, &ended);
        if (taken < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            Py_DECREF(found);
            return PyErr_SetFromErrno(PyExc_OSError);
        }
        if (append_all(found, numbers, taken) < 0) {
            Py_DECREF(found);
            return NULL;
        }
    } while (taken == MOST);
    if (ended && PyList_GET_SIZE(found) == 0) {
        Py_DECREF(found);
        Py_RETURN_NONE;
    }
    return found;
}
