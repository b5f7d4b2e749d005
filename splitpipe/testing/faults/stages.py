"""Stages that go wrong: at a chosen item, in a chosen worker, once or always.

Responsible for: `Fault`, which strikes where a stage, a generator or a value of the user's says so,
and for what may happen there: an exception, an exit, a signal, a wait without end.

Rules:
- a fault is a value: it travels to workers as functions do, and may be put into several places;
- every process counts for itself. What has to happen once over all processes, or once although the
  process that it killed is replaced, is counted in a file: see `FaultLog`;
- it is noted before it strikes: what dies has left its note;
- nothing here knows how a pipeline is run: a fault strikes as well in anybody else's workers.
"""

from __future__ import annotations

import collections
import ctypes
import faulthandler
import functools
import itertools
import multiprocessing
import os
import re
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from splitpipe.testing.faults.log import FaultLog

__all__ = ["HOWS", "Fault", "How", "InjectedFault", "worker_index"]


class InjectedFault(Exception):
    """What a `Fault` raises unless another exception was chosen."""


def _raise() -> None:
    raise InjectedFault("a fault was injected here")


def _segfault() -> None:
    faulthandler.disable()  # what is meant to happen is no news
    ctypes.string_at(0)


def _abort() -> None:
    faulthandler.disable()
    os.abort()


def _loop() -> None:
    while True:
        pass


def _hold() -> None:
    # All of it happens in one call of C code, which never lets the interpreter lock go.
    collections.deque(itertools.repeat(None), maxlen=0)


def _by_signal(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


HOWS: Final[dict[str, Callable[[], object]]] = {
    "raise": _raise,
    "sys.exit": lambda: sys.exit(3),
    "os._exit": lambda: os._exit(3),
    "kill": _by_signal(signal.SIGKILL),
    "terminate": _by_signal(signal.SIGTERM),
    "interrupt": _by_signal(signal.SIGINT),
    "abort": _abort,
    "segfault": _segfault,
    "stop": _by_signal(signal.SIGSTOP),
    "loop": _loop,
    "hold": _hold,
    "wait": lambda: threading.Event().wait(),
}
"""What may happen, by name.

``raise`` an `InjectedFault`; ``sys.exit`` (SystemExit, status 3) and ``os._exit`` (no clean-up);
``kill``, ``terminate``, ``interrupt`` and ``abort`` the process by SIGKILL, SIGTERM, SIGINT and
SIGABRT; ``segfault`` by reading address 0; ``stop`` it by SIGSTOP; ``loop`` for ever in Python;
``hold`` the interpreter lock for ever, in a loop in C; ``wait`` for ever for what never comes.
"""

How = str | BaseException | type[BaseException] | Callable[[], object]

_counters: dict[tuple[str, int, str], Iterator[int]] = {}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong in user code.

    It strikes where `strike` is called; the other methods call it at places that are hard to
    reach by hand. With none of `at`, `when` and `worker` it strikes at every item.

    Args:
        how: one of `HOWS`, an exception (or its class) to raise, or a function to call.
        at: which item, counted from 0, of those that this process is asked about.
        when: whether an item is to be struck, asked with the item.
        worker: number of the worker in its task (`worker_index`); in no other process.
        times: how often; None: always. Without a `log` every process counts for itself.
        log: file that all processes note their strikes in, and count them by. Where `how` kills
            the process and something starts it again, `times` needs it.

    Example:
        >>> import splitpipe as sp
        >>> from splitpipe.testing.faults import Fault
        >>> fault = Fault(ValueError("bad record"), when=lambda x: x == 3)
        >>> pipe = sp.Pipeline(range(9)).map(fault.before(str))
        >>> got = []
        >>> try:
        ...     for item in pipe:
        ...         got.append(item)
        ... except ValueError as error:
        ...     print(got, error)
        ['0', '1', '2'] bad record
    """

    how: How = "raise"
    at: int | None = None
    when: Callable[[Any], bool] | None = None
    worker: int | None = None
    times: int | None = 1
    log: FaultLog | None = None
    _token: str = field(default_factory=lambda: secrets.token_hex(8), repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.how, str) and self.how not in HOWS:
            raise ValueError(f"no such fault: {self.how!r}; there are {', '.join(HOWS)}")

    def strike(self, item: Any = None) -> None:
        """Go wrong here, if this is the item, the worker and the time."""
        if self.worker is not None and worker_index() != self.worker:
            return
        if self.at is not None and self._next("asked") != self.at:
            return
        if self.when is not None and not self.when(item):
            return
        if self.log is not None:
            if not self.log.claim(self.times, item=item, worker=worker_index()):
                return
        elif self.times is not None and self._next("struck") >= self.times:
            return
        how = self.how
        if isinstance(how, str):
            HOWS[how]()
        elif isinstance(how, BaseException):
            raise how
        elif isinstance(how, type) and issubclass(how, BaseException):
            raise how()
        else:
            how()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, struck when it is called; its first argument is the item.

        Example:
            >>> fault = Fault(KeyError, at=1)
            >>> double = fault.before(lambda x: 2 * x)
            >>> double(5)
            10
            >>> double(6)
            Traceback (most recent call last):
            KeyError
        """
        return _Struck(self, function, early=True)

    def after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, struck when it has done its work; its result is the item."""
        return _Struck(self, function, early=False)

    def passing(self, items: Iterable[Any]) -> Iterator[Any]:
        """A free stage, ``through(fault.passing)``: struck before it hands an item on.

        Example:
            >>> import splitpipe as sp
            >>> fault = Fault(ValueError("torn"), at=2)
            >>> items = iter(sp.Pipeline(range(9)).through(fault.passing))
            >>> next(items), next(items)
            (0, 1)
            >>> try:
            ...     next(items)
            ... except ValueError as error:
            ...     print(repr(error), *error.__notes__)  # doctest: +ELLIPSIS
            ValueError('torn') in stage 'passing' ...
        """
        for item in items:
            self.strike(item)
            yield item
            del item  # it may lie in a slot that the next one needs

    def following(self, items: Iterable[Any]) -> Iterator[Any]:
        """A free stage, struck when it is asked for more after it has handed an item on."""
        for item in items:
            yield item
            self.strike(item)
            del item

    def closing(self, items: Iterable[Any]) -> Iterator[Any]:
        """A free stage, struck in its ``finally``: at the end of an epoch, or when it is closed."""
        try:
            yield from items
        finally:
            self.strike()

    def pickling(self, value: Any) -> Any:
        """Return what strikes while it is pickled, and is `value` where it arrives.

        Example:
            >>> import pickle
            >>> pickle.loads(pickle.dumps(Fault(OSError, at=1).pickling("text")))
            'text'
            >>> pickle.dumps(Fault(OSError).pickling("text"))
            Traceback (most recent call last):
            OSError
        """
        return _Outgoing(self, value)

    def unpickling(self, value: Any) -> Any:
        """Return what strikes while it is unpickled, and is `value` where it arrives."""
        return _Incoming(self, value)

    def _next(self, what: str) -> int:
        """Count; a forked child begins anew."""
        key = (self._token, os.getpid(), what)
        return next(_counters.setdefault(key, itertools.count()))


class _Struck:
    """A function with a fault in it: looks like the function, and travels as it does."""

    def __init__(self, fault: Fault, function: Callable[..., Any], *, early: bool) -> None:
        functools.update_wrapper(self, function, updated=())
        self._fault = fault
        self._function = function
        self._early = early

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self._early:
            self._fault.strike(*args[:1])
            return self._function(*args, **options)
        made = self._function(*args, **options)
        self._fault.strike(made)
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return _struck, (self._fault, self._function, self._early)


def _struck(fault: Fault, function: Callable[..., Any], early: bool) -> _Struck:
    return _Struck(fault, function, early=early)


class _Outgoing:
    def __init__(self, fault: Fault, value: Any) -> None:
        self._fault = fault
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        self._fault.strike(self._value)
        return _arrive, (None, self._value)


class _Incoming:
    def __init__(self, fault: Fault, value: Any) -> None:
        self._fault = fault
        self._value = value

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self._fault, self._value)


def _arrive(fault: Fault | None, value: Any) -> Any:
    if fault is not None:
        fault.strike(value)
    return value


_WORKER = re.compile(r"splitpipe worker (\d+) of ")


def worker_index() -> int | None:
    """Return the number, in its task, of the worker that runs this; None in any other process.

    Example:
        >>> worker_index() is None
        True
        >>> import splitpipe as sp
        >>> pipe = sp.Pipeline(range(8)).map(lambda x: worker_index(), workers=2, executor="thread")
        >>> with pipe.loader() as loader:
        ...     set(loader) <= {0, 1}
        True
    """
    names = (threading.current_thread().name, multiprocessing.current_process().name)
    for match in map(_WORKER.match, names):
        if match is not None:
            return int(match[1])
    return None
