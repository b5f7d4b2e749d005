"""The crash table: where a worker is struck, how, and exactly what its consumer sees of that.

Responsible for: the rows, as data. What runs them is in ``test_workers.py``; ``docs/failures.md``
tells them to people.

The outcomes without replacement (``restarts=0``):
- *told*: an exception of user code arrives at its place in the order, after every item before it;
- *died*: a `WorkerDied` that names the stage and says how the process ended, after a part of the
  items before it, in their order;
- *waits*: nothing can be told, since nothing has ended. The consumer waits, at no cost, until the
  loader is closed, which takes half a second at most, or until a deadline that was given is over;
- *gone*: the loader is being closed: it is closed.

With replacement a death is no outcome: the stream is that of a run in which nothing happened.
"""

from __future__ import annotations

from dataclasses import dataclass

import splitpipe as sp
from splitpipe.testing.faults import InjectedFault
from tests.faults.places import PLACES

__all__ = ["DEATHS", "ENDLESS", "ROWS", "Row"]

DEATHS = {
    "os._exit": "left with exit status 3",
    "kill": "was killed by SIGKILL",
    "terminate": "was killed by SIGTERM",
    "abort": "was killed by SIGABRT",
    "segfault": "was killed by SIGSEGV",
}
"""How a process may end, and what is said of it."""

ENDLESS = ("stop", "loop", "hold", "wait")
"""What does not end by itself."""

RAISED = ("raise", "sys.exit")


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        where: name of a place.
        how: name of a fault.
        outcome: ``told``, ``died``, ``waits`` or ``gone``.
        error: type of what the consumer gets.
        says: what its text holds.
    """

    where: str
    how: str
    outcome: str
    error: type[BaseException] | None = None
    says: str = ""

    def __str__(self) -> str:
        return f"{self.where}, {self.how}"


def _row(where: str, how: str) -> Row:
    if PLACES[where].after_close:
        return Row(where, how, "gone")
    if how in ENDLESS:
        return Row(where, how, "waits")
    if how in DEATHS:
        return Row(where, how, "died", sp.WorkerDied, DEATHS[how])
    if how == "sys.exit":
        return Row(where, how, "told", sp.StageFailed, "SystemExit: 3")
    if where == "serialising":
        return Row(where, how, "told", sp.NotPicklable, "InjectedFault")
    return Row(where, how, "told", InjectedFault, "a fault was injected here")


ROWS = tuple(_row(where, how) for where in PLACES for how in (*RAISED, *DEATHS, *ENDLESS))
