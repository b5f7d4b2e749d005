"""Failures of user code, from the worker where they happen to the consumer where they are raised.

Responsible for: finding out which stage failed, and carrying an exception over without losing its
type, its traceback, or the place in the stream.

Rules:
- the consumer sees the user's own exception type, with notes; `StageFailed` only where that type
  cannot travel;
- SystemExit, KeyboardInterrupt and StopIteration of a stage never end anything silently: they are
  `StageFailed`;
- an exception is trusted to travel only after it has survived the journey once, here. One that
  cannot, and need not leave this process, is the consumer's own object (`keep_exceptions`).
"""

from __future__ import annotations

import os
import threading
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from types import TracebackType
from typing import Any

from splitpipe.errors import StageFailed
from splitpipe.pipeline.stage import Stage
from splitpipe.transport.base import Buffer
from splitpipe.transport.pickling import dump, load

__all__ = [
    "Failure",
    "Reports",
    "annotate",
    "failing_stage",
    "keep_exceptions",
    "keeps_exceptions",
]

_CONTROL = (SystemExit, KeyboardInterrupt, GeneratorExit, StopIteration, StopAsyncIteration)


def failing_stage(
    error: BaseException, stages: Iterable[Stage], sources: Iterable[Iterator[Any]] = ()
) -> str | None:
    """Return the name of the innermost of `stages` that `error` passed through; None where that
    was one of their `sources`.
    """
    names: dict[int, str | None] = {id(stage.operation): stage.name for stage in stages}
    codes = set()
    for source in sources:
        names[id(source)] = None
        codes.add(getattr(source, "gi_code", None))
    codes.discard(None)
    chain: list[BaseException] = [error]
    cause = error.__cause__
    if isinstance(error, RuntimeError) and isinstance(cause, StopIteration):
        chain.insert(0, cause)  # PEP 479: the place is where the StopIteration came from
    for one in chain:
        found = None
        position: TracebackType | None = one.__traceback__
        while position is not None:
            frame = position.tb_frame
            found = names.get(id(frame.f_locals.get("self")), found)
            if frame.f_code in codes:
                found = None
            position = position.tb_next
        if found is not None:
            return found
    return None


def annotate(error: BaseException, notes: Iterable[str]) -> None:
    """Add notes that are not there yet."""
    present = getattr(error, "__notes__", [])
    for note in notes:
        if note not in present:
            error.add_note(note)


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception on its way.

    Attributes:
        pickled: the exception itself, or None when it cannot travel.
        summary: its type and message.
        notes: stage, worker, position, record, remote traceback.
    """

    pickled: bytes | None
    summary: str
    notes: tuple[str, ...]

    @classmethod
    def of(cls, error: BaseException, *, where: tuple[str, ...]) -> Failure:
        """Return `error`, caught in a worker, ready to travel."""
        text = "".join(traceback.format_exception(error)).rstrip()
        summary = f"{type(error).__qualname__}: {_text(error)}"
        notes = (*where, "traceback in the worker:\n" + text)
        return cls(_survivor(error), summary, notes)

    def encode(self) -> bytes:
        return dump((self.pickled, self.summary, self.notes))

    @classmethod
    def decode(cls, body: Buffer) -> Failure:
        return cls(*load(body))

    def rebuild(self) -> BaseException:
        """Return the exception to raise in the consumer."""
        error: BaseException
        try:
            error = load(self.pickled) if self.pickled is not None else self._stand_in()
        except Exception:
            error = self._stand_in()
        annotate(error, self.notes)
        return error

    def _stand_in(self) -> StageFailed:
        return StageFailed(f"a stage raised {self.summary}")


class Reports:
    """Failures that several threads tell of: whatever was raised is reported once, the same to all.

    Reporting may take the traceback from an exception, and where it is raised again another one is
    put in its place: a second report would not know where it came from.

    Args:
        tellers: how many may tell of the same one. For a single one nothing is kept: a traceback
            holds what its frames hold.
    """

    def __init__(self, tellers: int) -> None:
        self._tellers = tellers
        self._lock = threading.Lock()
        self._made: list[tuple[BaseException, Failure]] = []

    def of(self, error: BaseException, where: Callable[[], tuple[str, ...]]) -> Failure:
        """Return the report of `error`; `where` is asked for what it is told the first time."""
        with self._lock:
            found = next((report for one, report in self._made if one is error), None)
            if found is None:
                found = Failure.of(error, where=where())
                if self._tellers > 1:
                    self._made.append((error, found))
            return found


def _survivor(error: BaseException) -> bytes | None:
    """Return the pickle of `error` if it comes back as what it was."""
    if isinstance(error, _CONTROL):
        return None
    for traveller in (error, _Bare(error)):
        try:
            pickled = dump(traveller)
            back: Any = load(pickled)
        except Exception:
            continue
        if type(back) is not type(error) or _text(back) != _text(error):
            continue
        notes = getattr(error, "__notes__", None)
        if not notes or getattr(back, "__notes__", None) == notes:
            return pickled
    return _reference(error) if _own.stays else None


class _Own(threading.local):
    """What this thread's failures may rely on."""

    stays = False


_own = _Own()
_kept: OrderedDict[int, BaseException] = OrderedDict()
_MOST_KEPT = 16
_numbers = count()


def keep_exceptions() -> None:
    """Say that what fails in this thread is raised in this process: it need not be picklable."""
    _own.stays = True


def keeps_exceptions() -> bool:
    """Whether that was said in this thread: a thread that helps it has to say so, too."""
    return _own.stays


def _reference(error: BaseException) -> bytes:
    """Return the pickle of a reference to `error`; the last few of them can be followed."""
    number = next(_numbers)
    _kept[number] = error.with_traceback(None)  # its text is in the notes; frames hold anything
    if len(_kept) > _MOST_KEPT:
        _kept.popitem(last=False)
    return dump(_Reference(number))


class _Reference:
    """Something of this process, on its way within it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _follow, (os.getpid(), self._number)


def _follow(pid: int, number: int) -> BaseException:
    if pid != os.getpid():
        raise LookupError("a reference left its process")
    return _kept[number]


class _Bare:
    """An exception that travels without its constructor, which may want other arguments than
    `BaseException` remembers.
    """

    def __init__(self, error: BaseException) -> None:
        self._parts = type(error), error.args, dict(vars(error))

    def __reduce__(self) -> tuple[Any, ...]:
        return _assemble, self._parts


def _assemble(
    kind: type[BaseException], arguments: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    vars(error).update(state)
    return error


def _text(error: BaseException) -> str:
    """``str(error)``, of which the user's own code may make a mess."""
    try:
        return str(error)
    except Exception:
        return "<its str() failed>"
