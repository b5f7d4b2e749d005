"""The pipeline of docs/recovery.md, and a worker of it that is killed."""

import logging
import os
import signal

import splitpipe as sp

logging.getLogger("splitpipe").setLevel(logging.ERROR)
dead = os.path.abspath("dead")


def decode(n):
    if n == 500 and not os.path.exists(dead):
        open(dead, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def tokenize(items):
    yield from items


pipe = sp.Pipeline(range(1000)).map(decode, workers=1).batch(10)
rows = []
step = rows.extend


def done():
    assert rows == list(range(1000))
    assert os.path.exists(dead)
    loader.close()
