"""The crash table, for consumers: whatever ends one, whatever its workers are doing, nothing stays.

The suite takes every state of the workers and every end once or twice. All of them together, for
every start method and transport, take about ten minutes:

    SPLITPIPE_FAULTS=long python -m pytest tests/faults
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from splitpipe.testing.faults import Estate
from tests.faults.program import STATES
from tests.runtime.running import WITHIN_S, Program, running

LONG = os.environ.get("SPLITPIPE_FAULTS") == "long"

pytestmark = pytest.mark.deadline(90)

BODY = """
    from tests.faults.program import main

    if __name__ == "__main__":
        main({state!r}, {method!r}, {transport!r}, leave={leave})
"""


def kill(program: Program) -> None:
    program.kill(signal.SIGKILL)


def kill_group(program: Program) -> None:
    program.kill(signal.SIGKILL, group=True)


def interrupt(program: Program) -> None:
    program.kill(signal.SIGINT, group=True)


def interrupt_twice(program: Program) -> None:
    interrupt(program)
    if program.process.poll() is None:
        interrupt(program)


def terminate(program: Program) -> None:
    program.kill(signal.SIGTERM)


def leave(program: Program) -> None:
    """It leaves by itself."""


@dataclass(frozen=True)
class End:
    """How a consumer ends.

    Attributes:
        act: what is done to it.
        status: how it ends by that.
        quiet: whether nothing is to stand on its stderr.
    """

    act: Callable[[Program], None]
    status: int
    quiet: bool = True


ENDS = {
    "SIGKILL": End(kill, -signal.SIGKILL),
    "SIGKILL of the group": End(kill_group, -signal.SIGKILL),
    "Ctrl-C": End(interrupt, -signal.SIGINT, quiet=False),
    "Ctrl-C twice": End(interrupt_twice, -signal.SIGINT, quiet=False),
    "SIGTERM": End(terminate, -signal.SIGTERM),
    "leaving": End(leave, 0),
}
WAYS = (
    list(product(("forkserver", "fork", "spawn"), ("pipe", "zmq", "zmq+tcp")))
    if LONG
    else [("forkserver", "pipe")]
)
HARD = ("in a loop in C", "stopped", "in a pipeline of its own")
"""States that no thread of the worker's own can end."""


def chosen() -> list[Any]:
    every = list(product(STATES, ENDS))
    if not LONG:
        ends = list(ENDS)
        every = [
            (state, end)
            for number, state in enumerate(STATES)
            for end in {ends[number % len(ends)], ends[-1 - number % len(ends)]}
            | ({"SIGKILL"} if state in HARD else set())
        ]
    return [
        pytest.param(state, end, *way, id=", ".join((state, end, *way)))
        for state, end in sorted(every)
        for way in WAYS
    ]


@pytest.mark.parametrize(("state", "end", "method", "transport"), chosen())
def test_nothing_stays(tmp_path: Path, state: str, end: str, method: str, transport: str) -> None:
    how = ENDS[end]
    body = BODY.format(state=state, method=method, transport=transport, leave=end == "leaving")
    with running(tmp_path, body) as program:
        assert program.first_line() == "running"
        estate = Estate.of(program.process.pid)
        how.act(program)
        status, _, errors = program.finish()
        left = estate.wait(WITHIN_S)
        estate.kill()
        assert left == ()
        assert status == how.status, errors
        assert errors == "" if how.quiet else "KeyboardInterrupt" in errors
        program.assert_nothing_left([])
