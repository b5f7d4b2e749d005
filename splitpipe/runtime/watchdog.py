"""Workers that make no progress.

Responsible for: `Watchdog`, which looks at what workers note (see `splitpipe.runtime.notes`) and
finds those that are in one stage for longer than its deadline; `Stacks`, the way to where they are.

Rules:
- there is none, and nothing ticks, where no stage of a worker has a deadline;
- only a stage's own code counts: while it waits for its input, and while what it made waits for
  memory or for its reader, nobody is stuck;
- a time in which this process did not run itself (Ctrl-Z) is nobody's fault;
- a worker is asked where each of its threads is by a signal that is answered in C: also by one that
  holds the interpreter lock. One that was stopped (SIGSTOP) cannot answer, and that is said;
- a process is then killed, and is from there on a worker that died; a thread cannot be: the run
  ends.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from splitpipe.runtime import board as b
from splitpipe.runtime.board import Row
from splitpipe.transport.anonymous import Descriptor, anonymous_file

if TYPE_CHECKING:
    from splitpipe.pipeline.plan import RunOptions, Task

__all__ = ["Stacks", "Stall", "Ward", "Watchdog", "deadlines", "names"]

_ASK = signal.SIGRTMIN + 5 if hasattr(signal, "SIGRTMIN") else signal.SIGUSR2
_ANSWER_S = 1.0
_QUIET_S = 0.05
_SHORTEST_LOOK_S, _LONGEST_LOOK_S = 0.02, 1.0


def deadlines(task: Task, options: RunOptions) -> tuple[float | None, ...] | None:
    """Return the deadline of each stage of `task`, its sources included, by the numbers that they
    have on a board; None where there is none.
    """
    found = tuple(
        options.deadline_s
        if part.stage is None or part.stage.options.deadline_s is None
        else part.stage.options.deadline_s
        for part in task.body.parts
        if part.edge is None
    )
    return None if all(one is None for one in found) else found


def names(task: Task) -> tuple[str, ...]:
    """Return the names of the stages of `task`, in the same order."""
    parts = (part for part in task.body.parts if part.edge is None)
    return tuple(part.stage.name if part.stage is not None else part.name for part in parts)


class Stacks:
    """A file without a name into which a worker writes where it is, when it is asked.

    Example:
        >>> stacks = Stacks()
        >>> "most recent call first" in stacks.ask(os.getpid(), threading.Event())
        True
        >>> stacks.close()
    """

    def __init__(self) -> None:
        self._file = Descriptor(anonymous_file("splitpipe-stacks"))

    def listen(self) -> None:
        """Answer from now on: in the worker."""
        faulthandler.register(_ASK, file=self._file.fd, all_threads=True, chain=False)

    def ask(self, pid: int, stop: threading.Event) -> str:
        """Return where the process is; empty where it does not answer in time, or before `stop`."""
        if pid == os.getpid():
            faulthandler.dump_traceback(self._file.fd, all_threads=True)
        else:
            os.kill(pid, _ASK)
        seen, end = 0, time.monotonic() + _ANSWER_S
        while time.monotonic() < end and not stop.wait(_QUIET_S):
            nbytes = os.fstat(self._file.fd).st_size
            if nbytes and nbytes == seen:
                break
            seen = nbytes
        return os.pread(self._file.fd, seen, 0).decode(errors="replace")

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True)
class Ward:
    """A worker that is looked after.

    Attributes:
        name: how it is called.
        row: what it notes.
        deadlines: of its stages, by their numbers.
        stages: their names.
        stacks: how it is asked where it is.
        pid: of its process; None for a thread.
    """

    name: str
    row: Row
    deadlines: Sequence[float | None]
    stages: Sequence[str]
    stacks: Stacks
    pid: int | None


@dataclass(frozen=True)
class Stall:
    """What was found: in words, and where its threads were."""

    text: str
    stacks: str


class Watchdog:
    """Looks after the workers that have deadlines, in a thread of its own.

    Args:
        wards: returns them as they are now, by keys that are never used again.
        shortest: of all deadlines, in seconds.
        on_stall: called with the key of a worker, with what was found, and with what says whether
            it is so still.
    """

    def __init__(
        self,
        wards: Callable[[], Mapping[int, Ward]],
        shortest: float,
        on_stall: Callable[[int, Stall, Callable[[], bool]], None],
    ) -> None:
        self._wards = wards
        self._on_stall = on_stall
        self._every_s = min(_LONGEST_LOOK_S, max(_SHORTEST_LOOK_S, shortest / 5))
        self._looked = self._ran = time.perf_counter()
        self._stop = threading.Event()
        self._told: set[int] = set()
        self._thread = threading.Thread(target=self._run, name="splitpipe-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more. Safe to call twice."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(2 * _LONGEST_LOOK_S)  # whoever closes may hold what it waits for

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            now = time.perf_counter()
            if now - self._looked > self._every_s + _LONGEST_LOOK_S:
                self._ran = now  # nobody ran meanwhile, or hardly
            self._looked = now
            for key, ward in self._wards().items():
                if key not in self._told:
                    self._look(key, ward, now)

    def _look(self, key: int, ward: Ward, now: float) -> None:
        since, stage = ward.row[b.AT_SINCE], ward.row[b.AT_STAGE]
        if not stage or ward.row[b.STATE] != b.BUSY:
            return
        number = int(stage) - 1
        deadline = ward.deadlines[number] if number < len(ward.deadlines) else None
        elapsed = now - max(since, self._ran)
        if deadline is None or elapsed < deadline:
            return

        def still() -> bool:
            return (ward.row[b.AT_SINCE], ward.row[b.AT_STAGE]) == (since, stage)

        stacks = _ask(ward, self._stop)
        if not still() or self._stop.is_set():
            return
        self._told.add(key)
        name = ward.stages[number] if number < len(ward.stages) else "?"
        text = f"made no progress in stage {name!r} for {elapsed:.3g} s (deadline_s={deadline:g})"
        self._on_stall(key, Stall(text, stacks), still)


def _ask(ward: Ward, stop: threading.Event) -> str:
    """Return the stacks of a worker, or why there are none."""
    pid = os.getpid() if ward.pid is None else ward.pid
    if _stopped(pid):
        return "its stacks cannot be had: it was stopped by a signal (SIGSTOP)"
    try:
        answer = ward.stacks.ask(pid, stop)
    except ProcessLookupError:
        return ""
    return answer or "its stacks cannot be had: it does not answer signals"


def _stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            stat = file.read()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[:1] in (["T"], ["t"])
