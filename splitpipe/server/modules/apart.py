"""Work that lasts a moment, in a process of its own.

Responsible for: `ask`, which starts a child, tells it what is wanted and yields what it answers;
`answer`, the other side of it; and `end_children`, for a process that ends while others wait.

Rules:
- requests and answers are lines of JSON; what the work prints goes elsewhere, and its last words
  are kept for the error;
- a child that says nothing for too long is ended, with all that it has started; one that ends
  badly is an error that says how;
- a child ends when whoever asked it does.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

from splitpipe.errors import ServiceError
from splitpipe.server.children import (
    die_with_the_server,
    environment,
    how_it_ended,
    last_words,
)

__all__ = ["ChildFailed", "answer", "ask", "end_children"]

_READ = 1 << 16
_MOST_NBYTES = 256 << 20
_asked: set[subprocess.Popen[bytes]] = set()
"""Children that somebody in this process waits for."""


class ChildFailed(ServiceError):
    """A process that was asked for something did not answer."""


def ask(module: str, request: Any, *, silence_s: float) -> Iterator[Any]:
    """Start ``python -m module``, tell it `request`, and yield what it answers.

    Args:
        module: calls `answer`.
        request: a value of JSON.
        silence_s: most seconds before, between and behind its answers.

    Raises:
        ChildFailed: it was silent for too long, or did not end well.
    """
    with contextlib.ExitStack() as stack:
        words = stack.enter_context(tempfile.TemporaryFile())
        child = stack.enter_context(
            subprocess.Popen(
                # Safe path: a file of the working directory must not stand in for a library.
                [sys.executable, "-P", "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                env={**environment(), "PYTHONDONTWRITEBYTECODE": "1"},
                start_new_session=True,
            )
        )
        stack.callback(_end, child)
        stack.callback(_asked.discard, child)
        _asked.add(child)
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # its end is seen below
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        for line in _lines(child.stdout, silence_s):
            if line is None:
                raise ChildFailed(
                    f"it said nothing for {silence_s:g} s and was ended{_tail(words)}"
                )
            yield json.loads(line)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(silence_s)
        if child.returncode:
            raise ChildFailed(
                f"its process ended with {how_it_ended(child.returncode)}{_tail(words)}"
            )


def end_children() -> None:
    """End all children that are waited for: whoever waits is told that they did not answer."""
    for child in list(_asked):
        _end(child)


def answer(work: Callable[[Any], Iterable[Any]]) -> None:
    """In the child: call `work` with the request, and say what it yields."""
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what user code prints must not be taken for an answer
    request = json.loads(sys.stdin.buffer.readline())
    die_with_the_server(os.dup(0))
    for made in work(request):
        results.write(json.dumps(made).encode() + b"\n")
        results.flush()
    results.close()


def _lines(stream: IO[bytes], silence_s: float) -> Iterator[bytes | None]:
    """Yield whole lines; None when none came in time, which is the last."""
    descriptor, held = stream.fileno(), io.BytesIO()
    until = time.monotonic() + silence_s
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, until - time.monotonic())):
                yield None
                return
            data = os.read(descriptor, _READ)
            if not data:
                return
            held.write(data)
            if held.tell() > _MOST_NBYTES:
                raise ChildFailed("it answered with more than can be taken")
            *whole, rest = held.getvalue().split(b"\n") if b"\n" in data else (held.getvalue(),)
            if whole:
                held = io.BytesIO()
                held.write(rest)
                yield from whole
                until = time.monotonic() + silence_s


def _end(child: subprocess.Popen[bytes]) -> None:
    """End it, and all that it has started."""
    if child.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _tail(words: IO[bytes]) -> str:
    said = last_words(words)
    return f"; its last words: {said}" if said else ""
