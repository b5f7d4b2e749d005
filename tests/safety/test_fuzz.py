"""Manifests, indices and files that say anything at all: an error of ours, or the right records.

Ten thousand cases run in children that may not take more than 256 MiB; a case that hangs, asks for
more or ends in another way is told by its number, which makes it again. Twenty times as many, in
about ten minutes, or any number:

    SPLITPIPE_SAFETY=long python -m pytest tests/safety/test_fuzz.py
    SPLITPIPE_FUZZ=1000000 python -m pytest tests/safety/test_fuzz.py
"""

from __future__ import annotations

import contextlib
import os
import random
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splitpipe.dataset import open_dataset
from splitpipe.errors import CorruptRecord, FormatError, SplitpipeError
from splitpipe.storage import DatasetWriter, check_dataset, describe
from splitpipe.storage.format import FILE_HEADER_NBYTES
from splitpipe.storage.table import open_table
from splitpipe.testing.faults import Damaged, forked
from tests.safety.fuzzing import mutated, sealed, unsealed, with_other_index
from tests.safety.sessions import numbered, write
from tests.safety.truth import WAYS, assert_is

LONG = os.environ.get("SPLITPIPE_SAFETY") == "long"
ROOM_NBYTES = 256 << 20
# Longer than any case can take, and shorter than a test's deadline.
PATIENCE_S = 120.0
RECORDS = numbered(220)

Files = dict[str, bytes]
Case = Callable[[Files, random.Random], Files]


def some(count: int) -> range:
    """Numbers of cases: so many of a suite's 10,000, or of as many as were asked for."""
    scale = int(os.environ.get("SPLITPIPE_FUZZ", "200000" if LONG else "10000")) / 10_000
    return range(int(count * scale))


def plain(path: Path) -> None:
    """Two segments in bins of their own, with records enough for a whole stripe."""
    write(path, RECORDS[:150], bins=2)
    with DatasetWriter(path, append=True, bins=3, dealing=[2, 0, 1]) as writer:
        writer.write_many(RECORDS[150:])


def one_segment(path: Path) -> None:
    write(path, RECORDS, bins=2)


def changed(path: Path) -> None:
    """Columns, missing values, keys, metadata, updated and deleted records."""
    records = [{"n": n, "text": None if n % 7 == 0 else "x" * (n % 5)} for n in range(150)]
    with DatasetWriter(
        path, {"n": "int64", "text": "str"}, bins=2, metadata={"length": "int64"}
    ) as writer:
        keys, metas = [f"k{n}" for n in range(150)], [{"length": n} for n in range(150)]
        writer.write_many(records, keys, metas)
    with DatasetWriter(path, append=True) as writer:
        writer.update(3, {"text": "new"})
        writer.delete(5)
        writer.commit()
        writer.update(4, {"n": 9})
        writer.delete([6, 7])


# -- cases ----------------------------------------------------------------------------------------


def manifest_case(files: Files, rng: random.Random) -> Files:
    """The manifest says something else, under a right checksum."""
    return {"splitpipe.json": sealed(mutated(unsealed(files["splitpipe.json"]), rng))}


def index_case(files: Files, rng: random.Random) -> Files:
    """The index says something else, under right checksums of its pages."""
    return with_other_index(files, rng)


def junk_case(files: Files, rng: random.Random) -> Files:
    """A file has other bytes, more bytes or fewer."""
    name = rng.choice(sorted(files))
    raw = files[name]
    at = rng.randrange(len(raw) + 1)
    junk = rng.randbytes(rng.choice((0, 1, 4, 24, 100)))
    cut = at + rng.choice((0, len(junk), 4, 24, 1000))
    return {name: rng.choice((raw[:at] + junk + raw[cut:], raw[:at], junk))}


def read_records(path: Path) -> None:
    """Read plain records in every way: the right ones, if any."""
    with open_dataset(path) as ds:
        if len(ds) > 1000:
            return
        for name, way in WAYS.items():
            with contextlib.suppress(SplitpipeError):
                assert way(ds) == list(RECORDS[: len(ds)]), name
        ds.lengths(range(len(ds)))
    describe(path)


def read_columns(path: Path) -> None:
    """Read columns in every way."""
    records = open_table(path)
    try:
        if len(records) > 1000:
            return
        rows = np.arange(len(records))
        for name in records.schema:
            records.read(rows, [name])
        for row in rows.tolist():
            records.get(row)
        list(records.iterate_rows(0, len(records)))
    finally:
        records.close()
    check_dataset(path)


def run_cases(base: Path, cases: range, case: Case, *actions: Callable[[Path], object]) -> None:
    """Run cases in a child of little memory; the number of the first that fails is told."""
    files = {entry.name: entry.read_bytes() for entry in base.iterdir()}

    def run(tell: Callable[[], None]) -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_NBYTES,) * 2)
        for number in cases:
            tell()
            changed_files = case(files, random.Random(number))
            for name, content in changed_files.items():
                (base / name).write_bytes(content)
            for action in actions:
                with contextlib.suppress(SplitpipeError):
                    action(base)
            for name in changed_files:
                (base / name).write_bytes(files[name])

    with forked(run) as child:
        before = -1
        while child.told > before and not child.ended:
            before = child.told
            child.listen(seconds=PATIENCE_S)
        where = f"case {cases[child.told - 1]} of {case.__name__}"
        assert child.ended, f"{where} hangs"
        try:
            assert child.wait() == 0, where
        except AssertionError as error:
            raise AssertionError(f"{where}: {error}") from error


def made(tmp_path: Path, make: Callable[[Path], object]) -> Path:
    make(tmp_path / "base")
    return tmp_path / "base"


# -- tests ----------------------------------------------------------------------------------------


@pytest.mark.deadline(7200 if LONG else 60)
class TestThousands:
    def test_manifests(self, tmp_path: Path) -> None:
        run_cases(made(tmp_path, plain), some(4000), manifest_case, read_records)

    def test_manifests_of_columns(self, tmp_path: Path) -> None:
        run_cases(made(tmp_path, changed), some(1500), manifest_case, read_columns)

    def test_indices(self, tmp_path: Path) -> None:
        run_cases(made(tmp_path, one_segment), some(1500), index_case, read_records)

    def test_checking_indices(self, tmp_path: Path) -> None:
        run_cases(made(tmp_path, one_segment), some(500), index_case, check_dataset)

    def test_junk(self, tmp_path: Path) -> None:
        run_cases(made(tmp_path, plain), some(1500), junk_case, read_records, check_dataset)

    def test_junk_in_columns(self, tmp_path: Path) -> None:
        run_cases(made(tmp_path, changed), some(1000), junk_case, read_columns)


# -- what a fuzzer does not find by chance --------------------------------------------------------


class TestHostile:
    @pytest.mark.parametrize(
        "says",
        [
            {"retired": [[1, 0, 2]]},
            {"stale": [["index", 1, 0, 0]], "requires": ["changes"]},
            {"stale": [["bins", 1, 0, 2]], "requires": ["changes"]},
            {"retired": [[7, 0, 2]]},
        ],
        ids=str,
    )
    def test_a_writer_is_not_made_to_remove_what_is_in_use(
        self, tmp_path: Path, says: dict[str, Any]
    ) -> None:
        path = write(tmp_path / "ds", RECORDS)
        files = {entry.name: entry.read_bytes() for entry in path.iterdir()}
        document = unsealed(files["splitpipe.json"])
        (path / "splitpipe.json").write_bytes(sealed(document | says))
        with pytest.raises(FormatError), DatasetWriter(path, append=True) as writer:
            writer.write(b"one more")
        (path / "splitpipe.json").write_bytes(files["splitpipe.json"])
        assert_is(path, RECORDS)

    def test_a_last_generation_is_not_followed_by_one_that_cannot_be_read(
        self, tmp_path: Path
    ) -> None:
        path = write(tmp_path / "ds", RECORDS)
        file = path / "splitpipe.json"
        file.write_bytes(sealed(unsealed(file.read_bytes()) | {"generation": (1 << 63) - 1}))
        with contextlib.suppress(FormatError):
            open_dataset(path).close()
            # It counts as a dataset: then a writer must leave it one.
            with contextlib.suppress(SplitpipeError):
                append_one(path)
            readable = False
            with contextlib.suppress(FormatError):
                readable = check_dataset(path).ok
            assert readable

    @pytest.mark.parametrize(
        "text",
        [
            b"[" * 1024,
            b'{"writes": {"volume": 1, "first_bin": 0, "bins": 2, "columns": 1e3}}',
            b'{"writes": {"volume": 1, "first_bin": 0, "bins": 16777216, "columns": 65536}}',
            b'{"writes": [1]}',
            b'{"pid": 1, "host": "x", "since": 1e300, "writes": null}',
        ],
        ids=lambda text: text[:40].decode(),
    )
    def test_a_lock_with_nonsense_in_it_is_no_obstacle(self, tmp_path: Path, text: bytes) -> None:
        path = write(tmp_path / "ds", RECORDS)
        (path / "writer.lock").write_bytes(text)
        with forked(lambda tell: append_one(path)) as child:
            child.listen(seconds=PATIENCE_S)
            assert child.ended, "it hangs"
            assert child.wait() == 0
        assert_is(path, (*RECORDS, b"one more"))

    def test_an_entry_that_leads_to_a_bin_of_no_commit(self, tmp_path: Path) -> None:
        """A killed writer left the file; a flipped bit in the index leads there."""
        path = write(tmp_path / "ds", [b"one"], bins=2)
        (path / "v0001-c000-b00001.bin").write_bytes((path / "v0001-c000-b00000.bin").read_bytes())
        with Damaged(path / "v0001-c000.index") as file:
            file.flip(8 * (FILE_HEADER_NBYTES + 16))
            with open_dataset(path) as ds:
                for read in (lambda: ds[0], lambda: ds.get_batch([0]), lambda: list(ds)):
                    with pytest.raises(CorruptRecord):
                        read()
        assert_is(path, [b"one"])


def append_one(path: Path) -> None:
    with DatasetWriter(path, append=True) as writer:
        writer.write(b"one more")
