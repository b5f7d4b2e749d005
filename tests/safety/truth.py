"""What must be true of a dataset, whatever happened to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from splitpipe.dataset import Dataset, open_dataset
from splitpipe.errors import SplitpipeError
from splitpipe.order import binwise_order, global_order
from splitpipe.storage import DatasetWriter, check_dataset
from tests.safety.sessions import THIRD, Records, columns

__all__ = [
    "WAYS",
    "assert_is",
    "assert_next_writer_works",
    "found_at",
    "is_reported",
    "never_wrong",
]

WAYS: dict[str, Callable[[Dataset], list[bytes]]] = {
    "iterate": list,
    "index": lambda ds: [ds[row] for row in range(len(ds))],
    "batch": lambda ds: ds[list(range(len(ds)))],
    "backwards": lambda ds: ds[list(range(len(ds) - 1, -1, -1))][::-1],
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
        if ds.schema.bare:
            assert ds.lengths(range(len(ds))).tolist() == [len(record) for record in expected]
            assert ds.nbytes == sum(map(len, expected))
        elif ds.records.catalog is not None:
            for key, record in zip(ds.keys(), expected, strict=True):
                assert key is None or ds[key] == record
            missing = sum(record["text"] is None for record in expected)
            assert len(ds.where("text IS NULL")) == missing
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
    more = tuple(there[0] for _ in THIRD) if there and isinstance(there[0], dict) else THIRD
    with DatasetWriter(path, append=True, bins=4) as writer:
        if not there:
            more = tuple(columns(3)) if writer.schema and not writer.schema.bare else more
        writer.write_many(more)
    assert_is(path, there + more)
    named = {entry.name for entry in path.iterdir()}
    with DatasetWriter(path, overwrite=True, bins=1) as writer:
        writer.write(b"x")
    assert_is(path, [b"x"])
    left = {entry.name for entry in path.iterdir()} & named
    ours = {"splitpipe.json", "writer.lock"}
    assert not tidy or left == ours, f"files of no commit were left: {left - ours}"


def is_reported(path: Path) -> bool:
    """Whether checking finds that something is wrong."""
    try:
        return not check_dataset(path).ok
    except SplitpipeError:
        return True
