"""The index of foreign files: kept, rebuilt, resumed, never half, never wrong."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitpipe.errors import CorruptRecord, FormatError, StorageError
from splitpipe.formats import base, recognise
from splitpipe.formats.files import sources
from splitpipe.formats.indexing import build, index, kept
from tests.formats.reading import contents, everything, opened

RAW = b"".join(b"%d\n" % number for number in range(3000))
ROWS = list(range(3000))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of three files."""
    folder = tmp_path / "data"
    folder.mkdir()
    cuts = [0, RAW.index(b"\n1500\n") + 1, RAW.index(b"\n2000\n") + 1, len(RAW)]
    for number in range(3):
        (folder / f"f{number}.jsonl").write_bytes(RAW[cuts[number] : cuts[number + 1]])
    return folder


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that grows with every build."""
    told: list[str] = []
    run = build.Build.run

    def counted(self: Any, parts: Any) -> Any:
        told.append(type(parts).__name__)
        return run(self, parts)

    monkeypatch.setattr(build.Build, "run", counted)
    return told


def index_of(folder: Path) -> Path:
    (found,) = folder.rglob("*.index")
    return found


class TestKept:
    def test_once_beside_the_data(self, data: Path, builds: list[str]) -> None:
        before = contents(data)
        assert opened(data) == ROWS
        assert opened(data) == ROWS
        assert builds == ["MemoryParts"]
        assert index_of(data).parent == data / ".splitpipe"
        assert contents(data) == before

    def test_in_a_folder_of_ones_choice(self, data: Path, tmp_path: Path) -> None:
        assert opened(data, index_dir=tmp_path / "a" / "b") == ROWS
        assert index_of(tmp_path).parent == tmp_path / "a" / "b"
        assert not (data / ".splitpipe").exists()

    def test_moves_with_the_data(self, data: Path, builds: list[str]) -> None:
        assert opened(data) == ROWS
        data.rename(data.parent / "elsewhere")
        assert opened(data.parent / "elsewhere") == ROWS
        assert len(builds) == 1

    def test_options_that_matter_have_their_own(self, data: Path, builds: list[str]) -> None:
        for _ in range(2):
            assert opened(data) == ROWS
            assert opened(data, broken="skip") == ROWS
            assert opened(data / "f1.jsonl") == ROWS[1500:2000]
        assert len(builds) == 3

    def test_the_same_bytes_whoever_builds(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = set()
        for number, (size, workers) in enumerate([(1 << 20, 1), (100, 1), (100, 4), (1000, 3)]):
            monkeypatch.setattr(build, "_JOB_NBYTES", size)
            monkeypatch.setattr(kept, "SMALL_NBYTES", number * 10_000)
            recognise(data, index_dir=tmp_path / str(number), workers=workers).close()
            found.add(index_of(tmp_path / str(number)).read_bytes())
        assert len(found) == 1

    def test_progress(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "_JOB_NBYTES", 1000)
        told: list[tuple[int, int]] = []
        recognise(data, progress=lambda *now: told.append(now)).close()
        assert told[0] == (0, len(RAW))
        assert told[-1] == (len(RAW), len(RAW))
        assert [done for done, _ in told] == sorted(done for done, _ in told)
        assert len(told) > 10


class TestWhereNothingCanBeWritten:
    @pytest.fixture(autouse=True)
    def refused(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As on a read-only file system; permissions alone would not stop the superuser."""
        make = os.makedirs

        def refusing(path: Any, *args: Any, **options: Any) -> None:
            if str(path).startswith(str(data)):
                raise OSError(errno.EROFS, "Read-only file system", str(path))
            make(path, *args, **options)

        monkeypatch.setattr(os, "makedirs", refusing)

    def test_a_small_source_is_indexed_in_memory(self, data: Path) -> None:
        assert opened(data) == ROWS
        assert not (data / ".splitpipe").exists()

    def test_a_large_one_needs_a_folder(
        self, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "SMALL_NBYTES", 100)
        with pytest.raises(StorageError, match="index_dir=") as caught:
            recognise(data)
        assert caught.value.errno == errno.EROFS
        assert opened(data, index_dir=tmp_path / "index") == ROWS

    def test_the_folder_that_was_named_has_to_be_writable(self, data: Path) -> None:
        with pytest.raises(StorageError, match="index_dir="):
            recognise(data, index_dir=data / "index")


class TestChanges:
    @pytest.mark.parametrize("how", ["longer", "time", "sample", "new file", "gone"])
    def test_are_seen_on_opening(self, data: Path, how: str, builds: list[str]) -> None:
        assert opened(data) == ROWS
        file, expected = data / "f1.jsonl", ROWS
        at = file.stat()
        if how == "longer":
            file.write_bytes(file.read_bytes() + b"7\n")
            expected = [*ROWS[:2000], 7, *ROWS[2000:]]
        elif how == "time":
            os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns + 1))
        elif how == "sample":
            file.write_bytes(file.read_bytes().replace(b"1500\n", b"[15]\n", 1))
            os.utime(file, ns=(at.st_atime_ns, at.st_mtime_ns))
            expected = [*ROWS[:1500], [15], *ROWS[1501:]]
        elif how == "new file":
            (data / "f10.jsonl").write_bytes(b"8\n")
            expected = [*ROWS, 8]
        else:
            file.unlink()
            expected = [*ROWS[:1500], *ROWS[2000:]]
        assert opened(data) == expected
        assert len(builds) == 2

    def test_are_seen_when_a_file_is_opened(self, data: Path) -> None:
        records = recognise(data)
        assert records.read(np.array([0]), ["data"])["data"] == [0]
        (data / "f1.jsonl").write_bytes(b"1\n" * 5000)
        with pytest.raises(FormatError, match=r"f1\.jsonl is not what was indexed"):
            records.read(np.array([1600]), ["data"])
        (data / "f2.jsonl").unlink()
        with pytest.raises(StorageError, match="No such file"):
            records.read(np.array([2900]), ["data"])
        records.close()

    def test_are_told_from_a_broken_record(self, data: Path) -> None:
        records = recognise(data)
        assert records.read(np.array([0]), ["data"])["data"] == [0]
        # In place, so that the open file has it too.
        with open(data / "f0.jsonl", "r+b") as file:
            file.write(b"{")
        with pytest.raises(FormatError, match=r"written to since.*open the dataset again"):
            records.read(np.array([0]), ["data"])
        with open(data / "f0.jsonl", "r+b") as file:
            file.truncate(100)
        with pytest.raises(CorruptRecord, match="cut after it was indexed"):
            records.read(np.array([1000]), ["data"])
        records.close()

    def test_while_it_is_indexed(self, data: Path) -> None:
        def change(done: int, total: int) -> None:
            if done == total:
                (data / "f0.jsonl").write_bytes(b"1\n")

        with pytest.raises(FormatError, match="changed while it was indexed"):
            recognise(data, progress=change)
        assert not list(data.rglob("*.index"))
        assert opened(data) == [1, *ROWS[1500:]]

    def test_before_it_is_opened_again_elsewhere(self, data: Path) -> None:
        import pickle

        pickled = pickle.dumps(recognise(data))
        (data / "f1.jsonl").write_bytes(b"1\n")
        with pytest.raises(FormatError, match="when this dataset was pickled"):
            pickle.loads(pickled)


class TestDamage:
    def small(self, tmp_path: Path) -> Path:
        (tmp_path / "a.jsonl").write_bytes(b"1\n2\n3\n")
        assert opened(tmp_path / "a.jsonl") == [1, 2, 3]
        return index_of(tmp_path)

    def test_every_flipped_bit_is_seen_and_mended(self, tmp_path: Path) -> None:
        file = self.small(tmp_path)
        good = file.read_bytes()
        for bit in range(8 * len(good)):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            with pytest.raises(FormatError):
                index.Index("it", bytes(bad))
        for bit in random.Random(0).sample(range(8 * len(good)), 50):
            bad = bytearray(good)
            bad[bit // 8] ^= 1 << bit % 8
            file.write_bytes(bad)
            assert opened(tmp_path / "a.jsonl") == [1, 2, 3]
            assert file.read_bytes() == good

    def test_every_cut_is_seen_and_mended(self, tmp_path: Path) -> None:
        file = self.small(tmp_path)
        good = file.read_bytes()
        for size in range(len(good)):
            with pytest.raises(FormatError):
                index.Index("it", good[:size])
        for size in (0, 10, 64, 100, len(good) - 1):
            file.write_bytes(good[:size])
            assert opened(tmp_path / "a.jsonl") == [1, 2, 3]
            assert file.read_bytes() == good

    def test_a_page_that_is_looked_at_later(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(index, "_VERIFIED_AT_ONCE_NBYTES", 0)
        recognise(data).close()
        file = index_of(data)
        bad = bytearray(file.read_bytes())
        bad[-60] ^= 1
        file.write_bytes(bad)
        records = recognise(data)
        assert records.read(np.arange(1000), ["data"])["data"] == ROWS[:1000]
        with pytest.raises(CorruptRecord, match="remove it, it is built again"):
            records.read(np.array([2990]), ["data"])
        records.close()
        file.unlink()
        assert opened(data) == ROWS

    def test_another_sources_index(self, tmp_path: Path) -> None:
        (tmp_path / "b.jsonl").write_bytes(b"4\n5\n6\n")
        file = self.small(tmp_path)
        assert opened(tmp_path / "b.jsonl") == [4, 5, 6]
        (other,) = (path for path in tmp_path.rglob("*.index") if path != file)
        file.write_bytes(other.read_bytes())
        assert opened(tmp_path / "a.jsonl") == [1, 2, 3]

    @settings(max_examples=200)
    @given(raw=st.binary(max_size=300), begun=st.booleans())
    def test_random_bytes(self, raw: bytes, begun: bool) -> None:
        start = b"SPLITIDX\x01\0\0\0\x02\0\0\0" + b"\xff" * 5 if begun else b""
        tracemalloc.start()
        try:
            with pytest.raises(FormatError):
                index.Index("it", start + raw)
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()


KILLED = """
import os, signal, sys
from splitpipe.formats import recognise
from splitpipe.formats.indexing import build, kept
build._JOB_NBYTES, kept.SMALL_NBYTES = 1000, 0
def told(done, total):
    if done >= {limit}:
        os.kill(os.getpid(), signal.SIGKILL)
recognise(sys.argv[1], progress=told, workers={workers})
"""


class TestEndings:
    @pytest.mark.parametrize(("limit", "workers"), [(0, 1), (5000, 1), (7000, 3), (len(RAW), 1)])
    def test_killed_and_taken_up_again(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, limit: int, workers: int
    ) -> None:
        code = KILLED.format(limit=limit, workers=workers)
        done = subprocess.run([sys.executable, "-c", code, str(data)], check=False)
        assert done.returncode == -signal.SIGKILL
        assert not list(data.rglob("*.index"))
        monkeypatch.setattr(build, "_JOB_NBYTES", 1000)
        monkeypatch.setattr(kept, "SMALL_NBYTES", 0)
        told: list[int] = []
        assert opened(data, progress=lambda now, _: told.append(now)) == ROWS
        assert told[0] >= limit
        names = {path.suffix for path in (data / ".splitpipe").iterdir()}
        assert names == {".index", ".lock"}

    @pytest.mark.parametrize("changed", [False, True])
    def test_parts_that_are_damaged_or_of_another_plan(
        self, data: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
    ) -> None:
        code = KILLED.format(limit=7000, workers=1)
        subprocess.run([sys.executable, "-c", code, str(data)], check=False)
        parts = sorted(data.rglob("*.part"))
        assert len(parts) >= 7
        raw = bytearray(parts[0].read_bytes())
        raw[len(raw) // 2] ^= 1
        parts[0].write_bytes(raw)
        parts[1].write_bytes(parts[1].read_bytes()[:-1])
        parts[2].write_bytes(b"")
        (parts[2].parent / "00000099.part").write_bytes(b"x")
        (parts[2].parent / "other").write_bytes(b"x")
        monkeypatch.setattr(build, "_JOB_NBYTES", 1000)
        monkeypatch.setattr(kept, "SMALL_NBYTES", 0)
        if changed:
            (data / "f0.jsonl").write_bytes(b"[0]" + (data / "f0.jsonl").read_bytes()[1:])
        assert opened(data) == ([[0], *ROWS[1:]] if changed else ROWS)
        assert not list(data.rglob("*.part"))

    def test_a_full_disk(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        for small in (0, 1 << 20):
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwrite", full)
                patch.setattr(kept, "SMALL_NBYTES", small)
                with pytest.raises(StorageError) as caught:
                    recognise(data)
                assert caught.value.errno == errno.ENOSPC
            assert not list(data.rglob("*.index"))
        assert opened(data) == ROWS

    def test_the_first_error_in_order(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "_JOB_NBYTES", 100)
        for number in (0, 2):
            with open(data / f"f{number}.jsonl", "ab") as file:
                file.write(b"{\n")
        for workers in (1, 4):
            with pytest.raises(CorruptRecord, match=r"f0\.jsonl, line 1501 "):
                recognise(data, validate=True, workers=workers)

    def test_interrupted(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(build, "_JOB_NBYTES", 100)

        def interrupt(done: int, _: int) -> None:
            if done > 3000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            recognise(data, workers=2, progress=interrupt)
        assert opened(data) == ROWS


class TestSharing:
    def test_two_builders(self, data: Path, builds: list[str]) -> None:
        inside, go_on = threading.Event(), threading.Event()

        def told(done: int, _: int) -> None:
            if not done:
                inside.set()
                assert go_on.wait(30)

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(opened, data, progress=told)
            assert inside.wait(30)
            second = pool.submit(opened, data)
            go_on.set()
            assert first.result() == second.result() == ROWS
        assert len(builds) == 1

    def test_threads(self, data: Path) -> None:
        records = recognise(data)

        def some(seed: int) -> bool:
            rows = random.Random(seed).choices(ROWS, k=500)
            return records.read(np.array(rows), ["data"])["data"] == rows

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(some, range(12)))
        records.close()

    def test_few_open_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for number in range(20):
            (tmp_path / f"{number}.jsonl").write_bytes(b"%d\n" % number)
        records = recognise(tmp_path)
        files = records._files  # type: ignore[attr-defined]
        monkeypatch.setattr(files, "_max_open", 3)
        assert everything(records) == list(range(20))
        assert len(files._open) == 3
        records.close()
        with pytest.raises(StorageError, match="closed"):
            records.read(np.array([0]), ["data"])

    def test_bins(self, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from splitpipe.formats.lines import records as module

        monkeypatch.setattr(module, "_SMALLEST_BIN_NBYTES", 1)
        for most in (1, 50, 1000, 8000, 1 << 20):
            monkeypatch.setattr(module, "_LARGEST_BIN_NBYTES", most)
            records = recognise(data)
            bins = records.layout().bins()
            assert [row for rows in bins for row in rows] == ROWS
            records.close()


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 3000), st.integers(0, 2000)),
        min_size=1,
        max_size=20,
    ),
    st.integers(1, 3000),
)
def test_reading_neighbours_together(places: list[tuple[int, int, int]], most: int) -> None:
    """Any batch of places, in any order, overlapping or not."""
    raw = random.Random(0).randbytes(5000)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_RUN_NBYTES", most)
        paths = [os.path.join(folder, str(number)) for number in range(3)]
        for path in paths:
            Path(path).write_bytes(raw)
        files = sources.SourceFiles(paths, list(map(sources.fingerprint, paths)))
        numbers, offsets, lengths = (np.array(each) for each in zip(*places, strict=True))
        found = sources.read_places(files, sources.Places(numbers, offsets, lengths))
        assert found == [raw[offset : offset + length] for _, offset, length in places]
        files.close()


def test_natural_order_is_total() -> None:
    names = ["a", "a1", "a01", "a10", "A2", "b/1", "b/a", "b-1/x", "1", "10", "9", "é", "²"]
    for seed in range(20):
        shuffled = names[:]
        random.Random(seed).shuffle(shuffled)
        assert sorted(shuffled, key=base.natural_key) == sorted(names, key=base.natural_key)
    assert sorted(["x10", "x9"], key=base.natural_key) == ["x9", "x10"]
