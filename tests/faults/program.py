"""A program whose workers are in some state, for its end to be looked at.

Responsible for: `main`, which starts one in each of `STATES`, says ``running`` when its workers are
in that state, and goes on until somebody ends it; everything travels by reference.

A state is where workers are when their consumer ends: that must not matter.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import splitpipe as sp
from splitpipe.testing.faults import Fault, FaultLog
from tests.faults.places import forever, in_a_slot, large, same

LOG = Path(os.environ.get("TMPDIR", ".")) / "strikes"


def third(x: Any) -> bool:
    return bool(x == 3)


def stuck(how: str) -> sp.Pipeline:
    """Nothing is to be had of it: what was made before may be held by a worker that is stopped."""
    fault = Fault(how, when=third, log=FaultLog(LOG))
    return sp.Pipeline(forever).map(fault.before(same), workers=2).map(same, workers=1)


def busy() -> sp.Pipeline:
    fault = Fault(lambda: None, when=third, log=FaultLog(LOG))
    return sp.Pipeline(forever).map(fault.before(large), workers=2).map(len, workers=1)


def holding_a_slot() -> sp.Pipeline:
    fault = Fault("wait", when=third, log=FaultLog(LOG))
    return sp.Pipeline(forever).map(partial(in_a_slot, fault), workers=2).map(len, workers=1)


def waiting_for_a_slot() -> sp.Pipeline:
    fault = Fault("wait", at=0, log=FaultLog(LOG))
    return sp.Pipeline(forever).map(large, workers=2).map(fault.before(len), workers=1)


def inner(x: int) -> int:
    fault = Fault("wait", when=third, log=FaultLog(LOG))
    pipe = sp.Pipeline(range(x, x + 9)).map(fault.before(same), workers=2)
    with pipe.loader() as loader:
        return sum(loader)


def nested() -> sp.Pipeline:
    return sp.Pipeline(range(9)).map(inner, workers=1)


STATES: dict[str, Callable[[], sp.Pipeline]] = {
    "busy": busy,
    "in a call that waits": partial(stuck, "wait"),
    "in a loop": partial(stuck, "loop"),
    "in a loop in C": partial(stuck, "hold"),
    "stopped": partial(stuck, "stop"),
    "holding a slot": holding_a_slot,
    "waiting for a slot": waiting_for_a_slot,
    "in a pipeline of its own": nested,
}


def main(state: str, method: str, transport: str, *, leave: bool = False) -> None:
    """Run until it is ended, or leave with the loader open."""
    pipe = STATES[state]()
    loader = pipe.loader(start_method=method, transport=transport)
    items: Iterator[Any] = loader
    if state == "busy":
        for _ in range(9):
            next(items)
    FaultLog(LOG).wait(1)
    print("running", flush=True)
    if leave:
        globals()["kept"] = loader  # what leaves is the interpreter
        return
    for _ in items:
        pass
