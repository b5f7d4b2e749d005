"""The same work in each system: ``python -m benchmarks.chaotic.peers SYSTEM ROW FOLDER``.

Responsible for: one adapter a system, each as its own guide has it, and a program that reads what
it gives and says so, one JSON line an item: what came, and how it ended.

Rules: every system has its own defaults (start method, queues), two workers where it can have them,
and the same function to call.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.chaotic.rows import AT, COUNT, ROWS, Row
from splitpipe.testing.faults import Fault, FaultLog

__all__ = ["SYSTEMS", "main", "missing"]

WORKERS = 2


class Odd(Exception):
    """Its constructor takes other arguments than it remembers."""

    def __init__(self, code: int, *, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


def _fail() -> None:
    raise ValueError("bad record")


def _fail_oddly() -> None:
    raise Odd(7, reason="odd")


def _break() -> Any:
    raise ValueError("cannot be restored")


class Unrestorable:
    """Travels, and does not arrive."""

    def __reduce__(self) -> Any:
        return _break, ()


def work(row: Row, log: FaultLog, x: int) -> Any:
    """Make item `x`."""
    if x == AT and row.how:
        times = 1 if row.once else None
        if row.how in ("unpicklable", "unrestorable"):
            log.claim(times, item=x)
            return Unrestorable() if row.how == "unrestorable" else (i for i in ())
        own: dict[str, Callable[[], None]] = {"raise": _fail, "odd": _fail_oddly}
        Fault(own.get(row.how, row.how), times=times, log=log).strike(x)
    # A program that is to be hit in the middle has to last until then.
    time.sleep(0.02 if row.act and not row.how else 0.001)
    return np.full(8 << 20, x % 251, np.uint8) if row.large else x


class Works:
    """`work`, as a dataset of the kind that PyTorch wants."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self._function = function

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> Any:
        made = self._function(index)
        if isinstance(made, np.ndarray):
            import torch

            return torch.from_numpy(made)
        return made


def _each(function: Callable[[int], Any]) -> Iterator[Any]:
    return map(function, range(COUNT))


def _splitpipe(function: Callable[[int], Any], **options: Any) -> Iterable[Any]:
    import splitpipe as sp

    loader = sp.Pipeline(range(COUNT)).map(function, workers=WORKERS, name="work").loader(**options)
    with loader:
        yield from loader


def _splitpipe_unguarded(function: Callable[[int], Any]) -> Iterable[Any]:
    return _splitpipe(function, restarts=0)


def _splitpipe_watched(function: Callable[[int], Any]) -> Iterable[Any]:
    return _splitpipe(function, restarts=0, deadline_s=1.0)


def _torch(function: Callable[[int], Any]) -> Iterable[Any]:
    from torch.utils.data import DataLoader

    return DataLoader(Works(function), batch_size=None, num_workers=WORKERS)  # type: ignore[arg-type]


def _mpqitr(function: Callable[[int], Any]) -> Iterable[Any]:
    from splitdataloader import MpQItr

    return MpQItr(_each, function)


def _pool(function: Callable[[int], Any]) -> Iterable[Any]:
    from multiprocessing import Pool

    with Pool(WORKERS) as pool:
        yield from pool.imap(function, range(COUNT))


def _futures(function: Callable[[int], Any]) -> Iterable[Any]:
    from concurrent.futures import ProcessPoolExecutor

    with ProcessPoolExecutor(WORKERS) as pool:
        yield from pool.map(function, range(COUNT))


SYSTEMS: dict[str, tuple[str, str, Callable[[Callable[[int], Any]], Iterable[Any]]]] = {
    "splitpipe": ("splitpipe", "splitpipe", _splitpipe),
    "splitpipe-0": ("splitpipe, `restarts=0`", "splitpipe", _splitpipe_unguarded),
    "splitpipe-1s": ("splitpipe, `deadline_s=1`, `restarts=0`", "splitpipe", _splitpipe_watched),
    "torch": ("torch `DataLoader`", "torch", _torch),
    "mpqitr": ("`MpQItr` of splitdataloader", "splitdataloader", _mpqitr),
    "pool": ("`multiprocessing.Pool`", "multiprocessing", _pool),
    "futures": ("`concurrent.futures`", "concurrent.futures", _futures),
}
"""By name: title, what has to be installed, and what makes the items."""


def missing(name: str) -> str:
    """Return why a system has no column here, or nothing."""
    if find_spec(SYSTEMS[name][1]) is None:
        return "not installed"
    return ""


def _number(item: Any) -> int:
    return int(item) if isinstance(item, int) else int(item[0])


def main(system: str, name: str, folder: str) -> None:
    """Read all that the system gives."""
    row = ROWS[name]
    log = FaultLog(Path(folder) / "strikes")

    def say(**what: Any) -> None:
        os.write(1, json.dumps({"at_s": time.monotonic(), **what}).encode() + b"\n")

    function = partial(work, row, log)
    say(pid=os.getpid())
    try:
        for item in SYSTEMS[system][2](function):
            say(item=_number(item))
            del item
            if row.leaves:
                sys.exit(0)
    except Exception as error:
        say(error=type(error).__name__, text=str(error)[:200])
        return
    say(end=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
