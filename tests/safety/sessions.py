"""Sessions that every kind of trouble is tried on, and what must be true of a dataset after it.

A `Session` says what is there before it, what it does, in steps that can be done again one by one,
and what is there after each of its commits.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import SplitpipeError
from splitpipe.order import binwise_order, global_order
from splitpipe.storage import DatasetWriter, check_dataset
from splitpipe.testing.faults import Strike, Tap, die, run_in_child

__all__ = [
    "SESSIONS",
    "WAYS",
    "Places",
    "Records",
    "Session",
    "Step",
    "assert_is",
    "assert_next_writer_works",
    "found_at",
    "never_wrong",
    "numbered",
    "write",
]

Records = tuple[bytes, ...]
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
    """

    name: str
    before: Records | None
    options: dict[str, Any]
    steps: Callable[[], list[Step]]
    commits: tuple[Records, ...]
    prepare: Callable[[Path], object] | None = None

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
        with DatasetWriter(path, **self.options) as writer:
            for step in self.steps():
                step(writer)

    def run_repeating(self, path: Path, failed: Callable[[SplitpipeError], None]) -> None:
        """Do it all, and once more whatever fails: what the documentation allows."""
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
)


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


# -- what must be true ----------------------------------------------------------------------------

WAYS: dict[str, Callable[[Dataset], list[bytes]]] = {
    "iterate": list,
    "index": lambda ds: [ds[row] for row in range(len(ds))],
    "batch": lambda ds: ds.get_batch(range(len(ds))),
    "backwards": lambda ds: ds.get_batch(list(range(len(ds) - 1, -1, -1)))[::-1],
    "slice": lambda ds: ds[:],
    "binwise": lambda ds: _in_order(ds, binwise_order(ds.bin_layout(), 1, 0)),
    "global": lambda ds: _in_order(ds, global_order(len(ds), 1, 0)),
}
"""Every way of reading all records, each giving them in row order."""


def _in_order(ds: Dataset, order: Any) -> list[bytes]:
    records = [b""] * len(ds)
    for row, record in zip(order.indices(0, len(order)).tolist(), ds.iterate(order)):
        records[row] = record
    return records


def assert_is(path: Path, records: Sequence[bytes]) -> None:
    """The dataset holds exactly these records, by every way of reading, and is intact."""
    expected = list(records)
    with open_dataset(path) as ds:
        assert len(ds) == len(expected)
        for name, way in WAYS.items():
            assert way(ds) == expected, name
        assert ds.lengths(range(len(ds))).tolist() == [len(record) for record in expected]
        assert ds.nbytes == sum(map(len, expected))
    report = check_dataset(path)
    assert report.ok, report.findings


def found_at(path: Path, outcomes: Sequence[Records | None]) -> int:
    """Which of these the directory holds, exactly and intact."""
    try:
        with open_dataset(path) as ds:
            found: Records | None = tuple(ds)
    except SplitpipeError:
        found = None
        if outcomes[0] is not None:
            raise
    if not found and outcomes[0] is None:
        # A directory without a dataset, and one with a dataset that never had a record.
        return 0
    assert found in outcomes, "neither the last commit nor the one under way"
    assert found is not None
    assert_is(path, found)
    return outcomes.index(found)


def never_wrong(path: Path, records: Sequence[bytes]) -> bool:
    """Read in every way; each gives the truth or an error of ours. Whether all gave it."""
    expected = list(records)
    fine = True
    for name, way in WAYS.items():
        try:
            with open_dataset(path) as ds:
                assert way(ds) == expected, name
        except SplitpipeError:
            fine = False
    return fine


def assert_next_writer_works(
    path: Path, outcomes: Sequence[Records | None], *, tidy: bool = True
) -> None:
    """Appending goes on from what is there, and overwriting leaves nothing of it behind.

    With ``tidy=False`` files of no commit may be left: after a power failure nobody may know of
    them, because the lock's note was lost.
    """
    there = outcomes[found_at(path, outcomes)] or ()
    with DatasetWriter(path, append=True, bins=4) as writer:
        writer.write_many(THIRD)
    assert_is(path, there + THIRD)
    named = {entry.name for entry in path.iterdir()}
    with DatasetWriter(path, overwrite=True, bins=1) as writer:
        writer.write(b"x")
    assert_is(path, [b"x"])
    left = {entry.name for entry in path.iterdir()} & named
    assert not tidy or left == {"splitpipe.json", "writer.lock"}, "files of no commit were left"
