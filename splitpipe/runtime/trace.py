"""A drawing of a run: what every worker did when.

Responsible for: the file that Perfetto (ui.perfetto.dev) and Chrome (chrome://tracing) show: the
JSON array of the Trace Event Format, one event a line.

Rules:
- every process collects its events and appends them in whole lines, each time with one write to a
  descriptor that only appends: lines of several processes do not mix;
- the file never grows beyond its limit: who has used up its part stops, and the file says so;
- after `close` it is valid JSON, also when workers were killed while they wrote; without `close`
  (the owner was killed) it is what both viewers still read: an array whose end is missing.

Format: "Trace Event Format" (Google, 2016), phases X (a span), C (a counter) and M (a name).
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from typing import Any

from splitpipe.errors import StorageError
from splitpipe.pipeline.trace_file import TraceFile
from splitpipe.transport.anonymous import Descriptor

__all__ = ["Recorder", "Trace", "TraceLink"]

FLUSH_EVENTS = 400
FLUSH_S = 0.5
SHORTEST_S = 5e-6
"""Spans below it cannot be seen, and would be most of a file."""


class TraceLink:
    """What a worker needs to write to the trace; travels to it.

    Args:
        file: the trace, open for appending.
        limit: bytes that one process may write.
    """

    def __init__(self, file: Descriptor, limit: int) -> None:
        self._file = file
        self.limit = limit

    def recorder(self, name: str, thread: int) -> Recorder:
        """Return what a worker writes with.

        Args:
            name: how it is called.
            thread: its number in the run: tells workers of one process apart.
        """
        made = Recorder(self.append, self.limit, thread)
        made.name(name)
        return made

    def append(self, lines: bytes) -> int:
        """Write whole lines; return how many bytes were.

        Raises:
            OSError: the disk is full.
        """
        return os.write(self._file.fd, lines)

    def close(self) -> None:
        """Let go of the file; in a worker's process. Safe to call twice."""
        self._file.close()


class Recorder:
    """Collects the events of one worker. Not for several threads at once.

    Args:
        append: what takes lines; see `TraceLink.append`.
        limit: bytes that it may write.
        thread: its number in the run.
        pid: of the process that it is drawn as; this one unless said.
        shift_s: what is added to times, where a clock is not the owner's.
    """

    def __init__(
        self,
        append: Callable[[bytes], int],
        limit: int,
        thread: int,
        *,
        pid: int | None = None,
        shift_s: float = 0.0,
    ) -> None:
        self._append = append
        self._left = limit
        self._shift_s = shift_s
        self._ids = {"pid": os.getpid() if pid is None else pid, "tid": thread}
        self._events: list[dict[str, Any]] = []
        self._flushed = time.perf_counter()

    def name(self, name: str) -> None:
        """Say whose events these are."""
        for event in ("process_name", "thread_name"):
            self._add({"name": event, "ph": "M", "args": {"name": name}})

    def span(self, name: str, start: float, stop: float, items: int) -> None:
        """Draw that something was done from `start` to `stop`, and for how many items."""
        if stop - start < SHORTEST_S:
            return
        times = {"ts": self._us(start), "dur": _us(stop) - _us(start)}
        self._add({"name": name, "cat": "splitpipe", "ph": "X", **times, "args": {"items": items}})

    def counter(self, name: str, at: float, values: dict[str, float]) -> None:
        """Draw numbers as they were at a moment."""
        self._add({"name": name, "cat": "splitpipe", "ph": "C", "ts": self._us(at), "args": values})

    def flush(self) -> None:
        """Append what was collected."""
        events, self._events = self._events, []
        self._flushed = time.perf_counter()
        if not events or self._left <= 0:
            return
        lines = b"".join(self._line(event) for event in events)
        if len(lines) > self._left:
            self._left = 0
            full = {"name": "the trace has reached its limit", "ph": "i", "s": "t"}
            when = {"ts": events[0].get("ts", self._us(self._flushed))}
            lines = self._line(full | when)
        self._left -= len(lines)
        try:
            # The first line break ends what a killed worker may have left of a line.
            if self._append(b"\n" + lines) <= len(lines):
                self._left = 0
        except OSError:
            self._left = 0  # a disk that is full ends the drawing, not the run

    def _us(self, seconds: float) -> float:
        return _us(seconds + self._shift_s)

    def _line(self, event: dict[str, Any]) -> bytes:
        return f"{_line(event | self._ids)},\n".encode()

    def _add(self, event: dict[str, Any]) -> None:
        if self._left <= 0:
            return
        self._events.append(event)
        full = len(self._events) >= FLUSH_EVENTS
        if full or time.perf_counter() - self._flushed > FLUSH_S:
            self.flush()


class Trace:
    """The owner's side: begins the file and ends it.

    Args:
        path: where to; a file that is there is replaced.
        processes: how many will write.
        limit: bytes that the file may have.

    Raises:
        StorageError: it cannot be written there.
    """

    def __init__(self, path: str, processes: int, limit: int = TraceFile.limit_bytes) -> None:
        self.path = os.path.abspath(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        try:
            self._file = Descriptor(os.open(self.path, flags, 0o666))
            os.write(self._file.fd, b"[\n")
        except OSError as error:
            text = f"the trace cannot be written: {error.strerror}"
            raise StorageError(error.errno, text, self.path) from error
        self.link = TraceLink(self._file, max(1, limit // max(1, processes)))
        self._closed = False

    @classmethod
    def of(cls, file: TraceFile, processes: int) -> Trace:
        """Begin the file that a user asked for."""
        return cls(os.fspath(file.path), processes, file.limit_bytes)

    def close(self) -> None:
        """End the array; everybody else has stopped writing. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(OSError):
            if not self._whole():
                self._mend()
            end = {"name": "splitpipe", "ph": "M", "pid": os.getpid(), "tid": 0, "args": {}}
            os.write(self._file.fd, f"{_line(end)}\n]\n".encode())
        self._file.close()

    def _whole(self) -> bool:
        """Whether every line is one: a worker that is killed may leave half of one."""
        with open(self.path, "rb") as file:
            next(file, b"")
            return all(
                line == b"\n" or (line.startswith(b"{") and line.endswith(b"},\n")) for line in file
            )

    def _mend(self) -> None:
        """Leave out what is no whole event, in place."""
        with open(self.path, "rb") as file:
            lines = [line.rstrip(b",\n") + b",\n" for line in file if _is_event(line)]
        os.truncate(self.path, 0)
        os.write(self._file.fd, b"[\n" + b"".join(lines))


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.rstrip(b",\n")), dict)
    except ValueError:
        return False


def _line(event: dict[str, Any]) -> str:
    return json.dumps(event, separators=(",", ":"))


def _us(seconds: float) -> float:
    return round(seconds * 1e6, 1)
