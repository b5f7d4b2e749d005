"""Sessions that every kind of trouble is tried on.

A `Session` says what is there before it, what it does, in steps that can be done again one by one,
and what is there after each of its commits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from splitpipe.dataset import open_dataset
from splitpipe.errors import SplitpipeError
from splitpipe.storage import DatasetWriter
from splitpipe.storage.compact import compact
from splitpipe.testing.faults import Strike, Tap, die, run_in_child

__all__ = [
    "SESSIONS",
    "Places",
    "Records",
    "Session",
    "Step",
    "columns",
    "numbered",
    "spread",
    "write",
]

Records = tuple[Any, ...]
Step = Callable[[DatasetWriter], object]
T = TypeVar("T")


def numbered(count: int, start: int = 0) -> Records:
    """Records of different lengths, also 0, each telling its number."""
    return tuple((b"%d," % n) * (n % 5) for n in range(start, start + count))


def write(path: Path, records: Sequence[bytes], bins: int = 2) -> Path:
    """Write a dataset in one session."""
    with DatasetWriter(path, bins=bins) as writer:
        writer.write_many(records)
    return path


# -- sessions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Session:
    """One writer's life.

    Attributes:
        name: for test ids.
        before: what is there when it begins; ``None`` for nothing at all.
        options: of the writer.
        steps: makes what is done with it, in order. A step that failed can be done again.
        commits: what is there after each commit.
        prepare: makes the directory; by default, a dataset of ``before`` in two bins.
        act: does it all, where it is no `DatasetWriter` that does.
    """

    name: str
    before: Records | None
    options: dict[str, Any]
    steps: Callable[[], list[Step]]
    commits: tuple[Records, ...]
    prepare: Callable[[Path], object] | None = None
    act: Callable[[Path], object] | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def outcomes(self) -> list[Records | None]:
        """All that may be found in the directory, from first to last."""
        return [self.before, *self.commits]

    @property
    def after(self) -> Records:
        """What is there at the end."""
        return self.commits[-1] if self.commits else self.before or ()

    def make(self, path: Path) -> None:
        """Make the directory as it is before the session."""
        if self.prepare is not None:
            self.prepare(path)
        elif self.before is not None:
            write(path, self.before)

    def run(self, path: Path) -> None:
        """Do it all, once."""
        if self.act is not None:
            self.act(path)
            return
        with DatasetWriter(path, **self.options) as writer:
            for step in self.steps():
                step(writer)

    def run_repeating(self, path: Path, failed: Callable[[SplitpipeError], None]) -> None:
        """Do it all, and once more whatever fails: what the documentation allows."""
        if self.act is not None:
            act = self.act
            _repeated(lambda: act(path), failed)
            return
        writer = _repeated(lambda: DatasetWriter(path, **self.options), failed)
        for step in self.steps():
            _repeated(lambda step=step: step(writer), failed)
        _repeated(writer.close, failed)


def _repeated(action: Callable[[], T], failed: Callable[[SplitpipeError], None]) -> T:
    try:
        return action()
    except SplitpipeError as error:
        failed(error)
        return action()


def _adding(*parts: Records) -> Callable[[], list[Step]]:
    """Write every part; commit between them (and, as every session, at the end)."""

    def steps() -> list[Step]:
        made: list[Step] = []
        for part in parts:
            made += [_write(part), lambda writer: writer.commit()]
        return made[:-1]

    return steps


def _write(records: Records) -> Step:
    # An iterator can be given again, to go on where it stopped.
    left = iter(records)
    return lambda writer: writer.write_many(left)


def _giving_up() -> list[Step]:
    return [
        _write(SECOND),
        lambda writer: writer.flush(),
        lambda writer: writer.abort(),
    ]


def _with_leftovers(path: Path) -> None:
    """A dataset that a killed writer left: bytes past the end, and a bin that no commit names."""
    write(path, FIRST)

    def killed() -> None:
        strike = Strike(1, die, chosen=lambda call: call.name == "os.replace")
        with Tap(path, strike), DatasetWriter(path, append=True, bins=3) as writer:
            writer.write_many(SECOND)
            writer.commit()

    assert run_in_child(killed) == 9


def _with_retired(path: Path) -> None:
    """A dataset that was overwritten while a reader held the old one, which is gone by now."""
    write(path, SECOND)
    with open_dataset(path), DatasetWriter(path, overwrite=True, bins=2) as writer:
        writer.write_many(FIRST)


# -- columns, keys and changes


def columns(count: int, start: int = 0) -> Records:
    return tuple(
        {"number": n, "text": None if n % 7 == 0 else "x" * (n % 5)}
        for n in range(start, start + count)
    )


def _with_columns(path: Path) -> None:
    with DatasetWriter(path, {"number": "int64", "text": "str"}, bins=2) as writer:
        writer.write_many(TABLE, [f"key {n}" for n in range(len(TABLE))])


def _with_changes(path: Path) -> None:
    """Updated and deleted records, and a column that came later."""
    _with_columns(path)
    with DatasetWriter(path, append=True) as writer:
        for step in _changing():
            step(writer)


def _changing() -> list[Step]:
    return [
        lambda writer: writer.update(3, {"text": "new"}),
        lambda writer: writer.update_many([("key 70", {"number": -1, "text": None})]),
        lambda writer: writer.commit(),
        lambda writer: writer.delete(["key 5", "key 7"]),
        lambda writer: writer.add_column("more", "bytes"),
        lambda writer: writer.commit(),
        lambda writer: writer.update_column("number", range(1000, 1000 + len(TABLE) - 2)),
        lambda writer: writer.update(3, {"text": "newer", "more": b"here"}),
    ]


def _changed(table: Records) -> tuple[Records, Records, Records]:
    """What `_changing` makes of it, commit by commit."""
    records = [dict(record) for record in table]
    records[3]["text"] = "new"
    records[70] |= {"number": -1, "text": None}
    first = tuple(dict(record) for record in records)
    records = [record | {"more": None} for at, record in enumerate(records) if at not in (5, 7)]
    second = tuple(dict(record) for record in records)
    for at, record in enumerate(records):
        record["number"] = 1000 + at
    records[3] |= {"text": "newer", "more": b"here"}
    return first, second, tuple(records)


TABLE = columns(140)
CHANGED = _changed(TABLE)

FIRST = numbered(150)
SECOND = numbered(140, start=1000)
THIRD = numbered(3, start=2000)

SESSIONS = (
    Session("create", None, {"bins": 2}, _adding(FIRST), (FIRST,)),
    Session("append", FIRST, {"append": True}, _adding(SECOND), (FIRST + SECOND,)),
    Session(
        "append in other bins",
        FIRST,
        {"append": True, "bins": 3},
        _adding(SECOND),
        (FIRST + SECOND,),
    ),
    Session("overwrite", FIRST, {"overwrite": True, "bins": 1}, _adding(SECOND), (SECOND,)),
    Session(
        "three commits",
        FIRST,
        {"append": True},
        _adding(SECOND, THIRD, SECOND),
        (FIRST + SECOND, FIRST + SECOND + THIRD, FIRST + SECOND + THIRD + SECOND),
    ),
    Session(
        "overwrite, then go on",
        FIRST,
        {"overwrite": True, "bins": 2},
        _adding(THIRD, SECOND),
        (THIRD, THIRD + SECOND),
    ),
    Session("give up", FIRST, {"append": True, "bins": 3}, _giving_up, ()),
    Session("give up overwriting", FIRST, {"overwrite": True, "bins": 1}, _giving_up, ()),
    Session(
        "tidy up and append",
        FIRST,
        {"append": True},
        _adding(SECOND),
        (FIRST + SECOND,),
        _with_leftovers,
    ),
    Session(
        "remove what was retired",
        FIRST,
        {"append": True},
        _adding(THIRD),
        (FIRST + THIRD,),
        _with_retired,
    ),
    Session(
        "write columns",
        None,
        {"schema": {"number": "int64", "text": "str"}, "bins": 2},
        _adding(TABLE),
        (TABLE,),
    ),
    Session("change", TABLE, {"append": True}, _changing, CHANGED, _with_columns),
    Session(
        "compact",
        CHANGED[-1],
        {},
        list,
        (CHANGED[-1],),
        _with_changes,
        compact,
    ),
)


def spread(count: int, most: int, first: int = 0) -> range:
    """Numbers below ``count`` from ``first`` on: all of them or, evenly, at most so many."""
    return range(first, count, max(1, -(-count // most)))


class Places:
    """Copies of what sessions start from, each in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made: dict[str, Path] = {}
        self._count = 0

    def new(self, session: Session) -> Path:
        """A new directory as it is before the session."""
        base = self._made.get(session.name)
        if base is None:
            base = self._root / f"base-{len(self._made)}" / "ds"
            base.parent.mkdir(parents=True)
            session.make(base)
            self._made[session.name] = base
        self._count += 1
        path = self._root / f"{self._count}" / "ds"
        path.parent.mkdir()
        if base.exists():
            shutil.copytree(base, path)
        return path

    def drop(self, path: Path) -> None:
        """Remove one of them."""
        shutil.rmtree(path.parent)
