/* Records that are not in memory: ask for all, then read them side by side.
 *
 * Responsible for: `Column.fetch`.
 *
 * Rules:
 * - every range is announced before the first is waited for, so that the disk has the whole batch
 *   to choose from;
 * - a few threads read into the objects that are returned, and check what they read: the disk must
 *   not rest while a processor copies. They live as long as the call: nothing is left to a fork or
 *   to the end of the process, and starting them costs less than one answer of a disk;
 * - they touch no Python object, and block all signals: a signal is the caller's business;
 * - a failing read is not reported here: who looks closer meets it again and says which file.
 */
#include "column.h"
#include "gil.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>

/* Threads that read beside the caller. */
#define MOST_HELPERS 8
/* The largest single read: some systems refuse 2 GiB and more. */
#define MOST_NBYTES ((uint64_t)1 << 30)

typedef struct {
    sp_step step;
    uint64_t offset;
    int descriptor;
} sp_read;

typedef struct {
    sp_read *reads;
    Py_ssize_t count;
    int verify;
    _Atomic Py_ssize_t next;
    atomic_int failed;
} sp_fetch;

static int
read_one(const sp_read *read, int verify)
{
    uint64_t done = 0;
    while (done < read->step.length) {
        uint64_t want = read->step.length - done;
        ssize_t got = pread(read->descriptor, read->step.target + done,
                            want < MOST_NBYTES ? want : MOST_NBYTES,
                            (off_t)(read->offset + done));
        if (got > 0) {
            done += (uint64_t)got;
        }
        else if (got == 0 || errno != EINTR) {
            return 0;
        }
    }
    return !verify
           || sp_crc.value(read->step.start, read->step.target, read->step.length)
                  == read->step.crc;
}

static void *
work(void *given)
{
    sp_fetch *fetch = given;
    Py_ssize_t at;
    while (!atomic_load(&fetch->failed)
           && (at = atomic_fetch_add(&fetch->next, 1)) < fetch->count) {
        if (!read_one(&fetch->reads[at], fetch->verify)) {
            atomic_store(&fetch->failed, 1);
        }
    }
    return NULL;
}

static void
announce(const sp_read *reads, Py_ssize_t count)
{
#if defined(POSIX_FADV_WILLNEED)
    for (Py_ssize_t at = 0; at < count; at++) {
        (void)posix_fadvise(reads[at].descriptor, (off_t)reads[at].offset,
                            (off_t)reads[at].step.length, POSIX_FADV_WILLNEED);
    }
#else
    (void)reads;
    (void)count;
#endif
}

/* Read all, without the GIL; whether all is well. */
static int
fetch_all(sp_fetch *fetch, int helpers)
{
    pthread_t threads[MOST_HELPERS];
    int started = 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    /* Helpers read what is announced first while the rest is still being announced. */
    while (started < helpers && pthread_create(&threads[started], NULL, work, fetch) == 0) {
        started++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    announce(fetch->reads, fetch->count);
    work(fetch);
    while (started > 0) {
        pthread_join(threads[--started], NULL);
    }
    return !atomic_load(&fetch->failed);
}

/* Plan every read and make its record; how many could be planned, -1 with a Python error. */
static Py_ssize_t
plan(sp_column *self, const int64_t *rows, sp_fetch *fetch, PyObject *list, PyObject **pins,
     Py_ssize_t *pinned)
{
    self->stamp++;
    for (Py_ssize_t at = 0; at < fetch->count; at++) {
        sp_entry entry;
        sp_read *read = &fetch->reads[at];
        if (!sp_locate(self, rows[at], &entry) || !sp_plan(self, rows[at], &entry, &read->step)) {
            return at;
        }
        read->offset = entry.offset;
        read->descriptor = self->bins[entry.number].descriptor;
        if (read->descriptor < 0) {
            return at;
        }
        PyObject *record = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)entry.length);
        if (record == NULL) {
            return -1;
        }
        PyList_SET_ITEM(list, at, record);
        read->step.target = (uint8_t *)PyBytes_AS_STRING(record);
        sp_pin(self, entry.number, pins, pinned);
    }
    return fetch->count;
}

/* The list of the batch's records, or NULL with `place` set, or NULL with a Python error. */
static PyObject *
fetch_list(sp_column *self, const int64_t *rows, Py_ssize_t count, int helpers, Py_ssize_t *place)
{
    sp_fetch fetch = {.reads = PyMem_New(sp_read, count), .count = count, .verify = self->verify};
    PyObject **pins = PyMem_New(PyObject *, count);
    PyObject *list = PyList_New(count);
    Py_ssize_t pinned = 0;
    int fine = 0;
    if (fetch.reads == NULL || pins == NULL || list == NULL) {
        PyErr_NoMemory();
    }
    else {
        PyObject_GC_UnTrack(list);
        *place = plan(self, rows, &fetch, list, pins, &pinned);
        if (*place == count) {
            SP_WITHOUT_GIL
            fine = fetch_all(&fetch, helpers);
            SP_WITH_GIL_AGAIN
            *place = fine ? count : 0;
        }
        PyObject_GC_Track(list);
    }
    while (pinned > 0) {
        Py_DECREF(pins[--pinned]);
    }
    PyMem_Free(pins);
    PyMem_Free(fetch.reads);
    if (!fine) {
        Py_CLEAR(list);
    }
    return list;
}

PyObject *
sp_column_fetch(sp_column *self, PyObject *const *arguments, Py_ssize_t count)
{
    Py_buffer view;
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "fetch takes rows and a number of threads");
        return NULL;
    }
    long helpers = PyLong_AsLong(arguments[1]);
    if (PyErr_Occurred() || sp_rows(arguments[0], &view) < 0) {
        return NULL;
    }
    helpers = helpers < 0 ? 0 : helpers > MOST_HELPERS ? MOST_HELPERS : helpers;
    Py_ssize_t place = 0;
    PyObject *found = fetch_list(self, view.buf, view.shape[0], (int)helpers, &place);
    PyBuffer_Release(&view);
    return found != NULL || PyErr_Occurred() ? found : PyLong_FromSsize_t(place);
}
