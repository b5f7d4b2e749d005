"""What is done to each system, as data: the rows of the table in ``docs/failures.md``.

Responsible for: `Row` and `ROWS`. A fault strikes item `AT` of `COUNT` that two workers make (one,
where a system has no more), or the program itself after so many items.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AT", "COUNT", "ROWS", "Row"]

COUNT = 200
AT = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that goes wrong.

    Attributes:
        name: key on the command line.
        title: in the table.
        how: name of a fault, or of a value, for the item; empty: none.
        once: it strikes once, not every process that comes to the item.
        act: what is done to the program when the fault struck, or after `AT` items: the name of a
            signal, of its whole group where it begins with ``group``.
        large: items are of 8 MB.
        full: it has a ``/dev/shm`` of one mebibyte.
        leaves: the program leaves with the iteration open.
    """

    name: str
    title: str
    how: str = ""
    once: bool = False
    act: str = ""
    large: bool = False
    full: bool = False
    leaves: bool = False


_ROWS = (
    Row("none", "nothing"),
    Row("raise", "a stage raises `ValueError`", "raise"),
    Row("odd", "it raises what pickle cannot restore", "odd"),
    Row("unpicklable", "it returns what cannot be pickled", "unpicklable"),
    Row("unrestorable", "it returns what cannot be restored", "unrestorable"),
    Row("sys.exit", "it calls `sys.exit`", "sys.exit"),
    Row("os._exit", "it calls `os._exit`", "os._exit"),
    Row("kill", "its process is killed (SIGKILL), whenever it gets that item", "kill"),
    Row("kill once", "its process is killed, once", "kill", once=True),
    Row("segfault", "its process crashes (SIGSEGV), once", "segfault", once=True),
    Row("stop", "its process is stopped (SIGSTOP)", "stop"),
    Row("loop", "it never returns", "loop"),
    Row("consumer", "the program is killed (SIGKILL)", act="SIGKILL"),
    Row("consumer loop", "the same, a worker being in an endless loop in C", "hold", act="SIGKILL"),
    Row("consumer stop", "the same, a worker being stopped", "stop", act="SIGKILL"),
    Row("group", "its whole group is killed", act="group SIGKILL"),
    Row("interrupt", "Ctrl-C", act="group SIGINT"),
    Row("interrupt loop", "Ctrl-C, a worker being in an endless loop", "loop", act="group SIGINT"),
    Row("terminate", "the program is terminated (SIGTERM)", act="SIGTERM"),
    Row("leave", "it leaves in the middle of the iteration", leaves=True),
    Row("full", "`/dev/shm` is full, items are of 8 MB", large=True, full=True),
)
ROWS = {row.name: row for row in _ROWS}
