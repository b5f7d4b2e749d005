"""Writing: what goes in comes out, and what may not go in leaves nothing behind."""

from __future__ import annotations

import array
import errno
import mmap
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.dataset import open_dataset
from splitpipe.errors import FormatError, LockedError, StorageError
from splitpipe.storage import DatasetWriter, buffer, check_dataset, describe
from tests.storage.making import assert_holds, numbered, write


@given(
    sessions=st.lists(
        st.tuples(st.lists(st.binary(max_size=40), max_size=150), st.integers(1, 9)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=60)
def test_any_records_in_any_bins_in_any_sessions(
    tmp_path_factory: pytest.TempPathFactory,
    sessions: list[tuple[list[bytes], int]],
) -> None:
    path = tmp_path_factory.mktemp("any") / "ds"
    everything: list[bytes] = []
    for records, bins in sessions:
        with DatasetWriter(path, bins=bins, append=True) as w:
            w.write_many(records)
        everything += records
        assert_holds(path, everything)


@pytest.mark.parametrize("bins", [1, 2, 64, 300])
def test_many_commits_in_one_session(tmp_path: Path, bins: int) -> None:
    records = numbered(700)
    with DatasetWriter(tmp_path / "ds", bins=bins) as w:
        for start in range(0, 700, 37):
            w.write_many(records[start : start + 37])
            w.commit()
            with open_dataset(tmp_path / "ds") as ds:
                assert list(ds) == records[: start + 37]
    assert_holds(tmp_path / "ds", records)


def test_appending_goes_on_with_the_same_bins(tmp_path: Path) -> None:
    path = tmp_path / "ds"
    records = numbered(1000)
    for start in range(0, 1000, 100):
        with DatasetWriter(path, bins=3, append=start > 0) as w:
            w.write_many(records[start : start + 100])
    assert_holds(path, records)
    assert describe(path).segments == ((0, 1000, 0, 3),)


def test_large_records_and_many_bins_need_no_more_descriptors(tmp_path: Path) -> None:
    rng = random.Random(0)
    records = [rng.randbytes(rng.choice([0, 10, 100_000, 5_000_000])) for _ in range(40)]
    assert_holds(write(tmp_path / "large", records, bins=3), records)
    small = numbered(1500)
    assert_holds(write(tmp_path / "many", small, bins=700), small)


def test_more_bins_than_records_makes_files_for_records_only(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", [b"a", b"b"], bins=5000)
    assert sum(1 for name in os.listdir(path) if name.endswith(".bin")) == 2
    assert_holds(path, [b"a", b"b"])
    with DatasetWriter(path, append=True) as w:
        w.write_many([b"c"] * 9)
    assert_holds(path, [b"a", b"b"] + [b"c"] * 9)


def test_an_empty_dataset_is_a_dataset(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", [])
    assert_holds(path, [])
    with open_dataset(path) as ds, pytest.raises(IndexError):
        ds[0]
    assert_holds(write(path, [b"now"]), [b"now"])


def test_every_bytes_like_object_is_taken_as_its_bytes(tmp_path: Path) -> None:
    mapped = mmap.mmap(-1, 4)
    buffer = bytearray(b"reused")
    with DatasetWriter(tmp_path / "ds") as w:
        w.write(buffer)
        buffer[:] = b"gone.."
        w.write(memoryview(b"abcdef")[::2])
        w.write(array.array("B", b"xyz"))  # type: ignore[arg-type]
        w.write(np.arange(3, dtype=np.uint16))  # type: ignore[arg-type]
        w.write(mapped)  # type: ignore[arg-type]
    mapped.close()
    assert_holds(tmp_path / "ds", [b"reused", b"ace", b"xyz", b"\0\0\1\0\2\0", bytes(4)])


@pytest.mark.parametrize("wrong", ["text", 7, [1, 2], 1.5, np.array([None, "x"])])
def test_what_is_not_bytes_like_is_refused_before_a_byte_is_written(
    tmp_path: Path, wrong: object
) -> None:
    with DatasetWriter(tmp_path / "ds", bins=2) as w:
        w.write_many([b"first", b"second"])
        w.commit()
        before = {p.name: p.stat().st_size for p in Path(tmp_path / "ds").iterdir()}
        with pytest.raises(FormatError, match=r"record 2: bytes are needed"):
            w.write(wrong)  # type: ignore[arg-type]
        with pytest.raises(FormatError, match=r"record 3: bytes are needed"):
            w.write_many([b"third", wrong, b"never"])  # type: ignore[list-item]
        assert before == {p.name: p.stat().st_size for p in Path(tmp_path / "ds").iterdir()}
    assert_holds(tmp_path / "ds", [b"first", b"second", b"third"])


def test_what_a_failing_iterator_gave_before_is_kept(tmp_path: Path) -> None:
    def records() -> Iterator[bytes]:
        yield from numbered(5000)
        raise KeyError("mine")

    with DatasetWriter(tmp_path / "ds") as w:
        with pytest.raises(KeyError, match="mine"):
            w.write_many(records())
        assert w.rows == 5000
    assert_holds(tmp_path / "ds", numbered(5000))


@pytest.mark.parametrize("bins", [0, -1, 65537, True, 2.5, "8"])
def test_a_wrong_number_of_bins_is_refused(tmp_path: Path, bins: object) -> None:
    with pytest.raises(FormatError, match="bins must be an integer from 1 to 65536"):
        DatasetWriter(tmp_path / "ds", bins=bins)  # type: ignore[arg-type]
    assert not (tmp_path / "ds").exists()


def test_running_twice_does_not_double(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", [b"a"])
    with pytest.raises(StorageError, match="append=True") as caught:
        DatasetWriter(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(path))
    with pytest.raises(FormatError, match="not both"):
        DatasetWriter(path, append=True, overwrite=True)
    assert_holds(path, [b"a"])


def test_a_foreign_directory_is_never_written_into(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    cases: list[dict[str, Any]] = [{}, {"append": True}, {"overwrite": True}]
    for options in cases:
        with pytest.raises(StorageError, match=r"not a splitpipe dataset.*thesis\.tex"):
            DatasetWriter(tmp_path, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(StorageError, match=r"thesis\.tex"):
        DatasetWriter(tmp_path / "thesis.tex")


def test_foreign_files_beside_a_dataset_are_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", numbered(20))
    for name in ("notes.txt", "v0001-c000-b00099.bin", "v0002-c000.index.bak"):
        (path / name).write_text("foreign")
    with DatasetWriter(path, append=True) as w:
        w.write(b"more")
    with DatasetWriter(path, overwrite=True, bins=2) as w:
        w.write(b"new")
    assert_holds(path, [b"new"])
    for name in ("notes.txt", "v0001-c000-b00099.bin", "v0002-c000.index.bak"):
        assert (path / name).read_text() == "foreign"


def write_and_fail(path: Path, **options: Any) -> None:
    with DatasetWriter(path, **options) as w:
        w.write_many(numbered(100_000))
        w.flush()
        raise KeyError


def test_an_exception_in_the_block_gives_up_what_was_not_committed(tmp_path: Path) -> None:
    path = tmp_path / "ds"
    with pytest.raises(KeyError):
        write_and_fail(path)
    assert not path.exists()
    write(path, [b"kept"])
    sizes = {p.name: p.stat().st_size for p in path.iterdir() if p.name != "writer.lock"}
    with pytest.raises(KeyError):
        write_and_fail(path, append=True, bins=9)
    assert_holds(path, [b"kept"])
    assert sizes == {p.name: p.stat().st_size for p in path.iterdir() if p.name != "writer.lock"}


class TestOverwriting:
    def test_the_old_dataset_is_there_until_the_commit(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", numbered(500), bins=4)
        with DatasetWriter(path, overwrite=True, bins=3) as w:
            w.write_many([b"new"] * 300)
            w.flush()
            assert_holds(path, numbered(500))
        assert_holds(path, [b"new"] * 300)
        names = {p.name for p in path.iterdir()}
        assert not any(name.startswith("v0001") for name in names)

    def test_an_open_reader_keeps_its_snapshot(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", numbered(500), bins=4)
        with open_dataset(path) as old:
            with DatasetWriter(path, overwrite=True) as w:
                w.write(b"new")
            # No bin was open yet: the files must still be there.
            assert list(old) == numbered(500)
        assert_holds(path, [b"new"])
        with DatasetWriter(path, append=True) as w:
            w.write(b"newer")
        assert not any(p.name.startswith("v0001") for p in path.iterdir())
        assert_holds(path, [b"new", b"newer"])

    def test_giving_up_leaves_the_old_one(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", numbered(500), bins=4)
        names = sorted(p.name for p in path.iterdir())
        with pytest.raises(KeyError):
            write_and_fail(path, overwrite=True)
        assert_holds(path, numbered(500))
        assert sorted(p.name for p in path.iterdir()) == names

    def test_with_nothing_empties_it(self, tmp_path: Path) -> None:
        path = write(tmp_path / "ds", numbered(5))
        with DatasetWriter(path, overwrite=True):
            pass
        assert_holds(path, [])


def test_a_reader_sees_the_commit_that_it_opened(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", numbered(100), bins=3)
    with open_dataset(path) as before:
        with DatasetWriter(path, append=True) as w:
            w.write_many(numbered(100, start=100))
        assert list(before) == numbered(100)
        assert before.nbytes == sum(map(len, numbered(100)))
    assert_holds(path, numbered(200))


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    w = DatasetWriter(tmp_path / "ds")
    w.write(b"x")
    w.close()
    w.close()
    w.abort()
    actions: list[Callable[[], None]] = [
        lambda: w.write(b"y"),
        lambda: w.write_many([b"y"]),
        w.flush,
        w.commit,
    ]
    for action in actions:
        with pytest.raises(StorageError, match="the writer is closed"):
            action()
    assert_holds(tmp_path / "ds", [b"x"])


def test_a_writer_that_is_forgotten_warns_and_lets_go(tmp_path: Path) -> None:
    w = DatasetWriter(tmp_path / "ds")
    w.write(b"lost")
    with pytest.warns(ResourceWarning, match="was not closed"):
        del w
    assert_holds(write(tmp_path / "ds", [b"kept"]), [b"kept"])


def test_a_second_writer_in_the_same_process_is_refused(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "ds") as w:
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on "):
            DatasetWriter(tmp_path / "ds", append=True)
        w.write(b"x")
    assert_holds(tmp_path / "ds", [b"x"])


def test_memory_held_is_bounded(tmp_path: Path) -> None:
    record = bytes(1 << 20)
    with DatasetWriter(tmp_path / "ds") as w:
        for _ in range(40):
            w.write(record)
            assert w._buffer._pending_nbytes <= buffer.PENDING_NBYTES + len(record)
        w.write_many([record] * 40)
        assert w._buffer._pending_nbytes <= buffer.PENDING_NBYTES + len(record)
        w.abort()


def test_at_most_forty_bytes_beyond_a_record(tmp_path: Path) -> None:
    records = [bytes(200)] * 20_000
    path = write(tmp_path / "ds", records, bins=64)
    on_disk = sum(p.stat().st_size for p in path.iterdir())
    assert (on_disk - 200 * len(records)) / len(records) < 40
    assert describe(path).overhead_nbytes < 40


def test_repr_says_where_and_how_far(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "ds") as w:
        w.write(b"x")
        assert repr(w) == f"DatasetWriter({str(tmp_path / 'ds')!r}, 1 records, 0 committed)"
    assert repr(w).endswith("closed)")


def test_progress_is_told_while_checking(tmp_path: Path) -> None:
    path = write(tmp_path / "ds", numbered(300), bins=1)
    told: list[tuple[int, int]] = []
    check_dataset(path, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (300, 300)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
